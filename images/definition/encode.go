package definition

import (
	"bytes"
	"slices"

	"go.yaml.in/yaml/v4"

	"github.com/cosi-os/cosi/images/pkcs11"
)

// YAML is the definition with what it extends, as one document without comments: what an image says of itself. Files that it names are named
// by name, which is given their paths.
func (d *Definition) YAML(name func(path string) string) ([]byte, error) {
	c := *d
	for _, path := range []*string{&c.UserData.URLCA, &c.SecureBoot.Key, &c.SecureBoot.Certificate, &c.SecureBoot.Variables, &c.PCRPolicy.Key, &c.PCRPolicy.PublicKey, &c.Upgrade.Key, &c.Upgrade.PublicKey} {
		if *path != "" && !pkcs11.Is(*path) {
			*path = name(*path)
		}
	}
	c.Extensions = slices.Clone(c.Extensions)
	for i, path := range c.Extensions {
		c.Extensions[i] = name(path)
	}
	c.Partitions.Extra = slices.Clone(c.Partitions.Extra)
	for i, p := range c.Partitions.Extra {
		if p.Content != "" {
			c.Partitions.Extra[i].Content = name(p.Content)
		}
	}
	data, err := yaml.Dump(&c)
	if err != nil {
		return nil, err
	}
	// Once more as nodes, to leave out what is not said.
	document := yaml.Node{}
	if err := yaml.Load(data, &document); err != nil {
		return nil, err
	}
	strip(&document, true)
	var out bytes.Buffer
	dumper, err := yaml.NewDumper(&out, yaml.WithIndent(2))
	if err != nil {
		return nil, err
	}
	if err := dumper.Dump(&document); err != nil {
		return nil, err
	}
	err = dumper.Close()
	return out.Bytes(), err
}

// strip takes comments and the style from a node and what is in it, and unless it is of a resource, fields that are empty.
func strip(n *yaml.Node, prune bool) {
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	n.Style, n.Anchor = 0, ""
	if n.Kind != yaml.MappingNode {
		for _, child := range n.Content {
			strip(child, prune)
		}
		return
	}
	var kept []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		strip(key, prune)
		strip(value, prune && key.Value != "resources")
		if !prune || !empty(value) {
			kept = append(kept, key, value)
		}
	}
	n.Content = kept
}

func empty(n *yaml.Node) bool {
	if n.Kind == yaml.ScalarNode {
		return n.Value == "" || n.Tag == "!!bool" && n.Value == "false"
	}
	return len(n.Content) == 0
}
