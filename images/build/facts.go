package build

import (
	"github.com/cosi-os/cosi/images/inspect"
)

// Facts are those of the image that a definition would give, as far as they are known without making it.
func Facts(o Options, definitionFile string) (*inspect.Facts, error) {
	p, err := Plan(o, definitionFile)
	if err != nil {
		return nil, err
	}
	text, err := p.Definition.YAML(namesOf(o, p.Definition).of)
	if err != nil {
		return nil, err
	}
	return inspect.DefinitionFacts(text, p.Packages())
}
