package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// tokens defines a Sensitive kind of people whose rules make sentences of what they judge.
func tokens(t *testing.T) string {
	t.Helper()
	const source = `syntax = "proto3";
package example;
import "buf/validate/validate.proto";
message Token {
  string key = 1 [(buf.validate.field).string.max_len = 100, (buf.validate.field).cel = {
    id: "key.long", expression: "size(this) == 0 || size(this) > 12 ? '' : 'too short: ' + this"}];
  map<string, string> more = 2 [(buf.validate.field).map.values.string.max_len = 3];
  repeated int32 numbers = 3;
}`
	compiler := protocompile.Compiler{Resolver: protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
		if path == "token.proto" {
			return protocompile.SearchResult{Source: strings.NewReader(source)}, nil
		}
		file, err := protoregistry.GlobalFiles.FindFileByPath(path)
		return protocompile.SearchResult{Desc: file}, err
	})}
	files, err := compiler.Compile(context.Background(), "token.proto")
	if err != nil {
		t.Fatal(err)
	}
	set, done := &descriptorpb.FileDescriptorSet{}, map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if done[file.Path()] {
			return
		}
		done[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	add(files[0])
	descriptors, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return "metadata: {type: rd, id: tokens.example.org}\nspec: {resource_type: Tokens.example.org, display_type: Token, default_namespace: config, sensitivity: SENSITIVE, message: example.Token, descriptors: " +
		base64.StdEncoding.EncodeToString(descriptors) + "}\n"
}

// TestASecretIsSaidByNoCommand: but by those that were asked for it in so many words.
func TestASecretIsSaidByNoCommand(t *testing.T) {
	p := newPerson(t, "unix://"+startRuntime(t))
	defined := p.file("tokens.yaml", tokens(t))
	p.want(exitOK, "apply", "-f", defined)
	const canary, other = "xyzzy-the-canary", "zyxxy"
	for _, kind := range []struct{ name, id, good, more string }{
		{"cert", "node", "{client_cas: [%s], serving_key: %[1]s}", "serving_key"},
		{"token", "a", "{key: %s, more: {%[1]s: a}}", "key"},
		{"registrycredentials", "registry.example:5000", "{username: node, password: %s, ca: '-----BEGIN CERTIFICATE----- %[1]s'}", "password"},
	} {
		resource := kind.name + "/" + kind.id
		document := func(spec string) string {
			return fmt.Sprintf("metadata: {type: %s, id: %s}\nspec: %s\n", kind.name, kind.id, spec)
		}
		// hidden runs a command and looks for both secrets in what it prints.
		hidden := func(code int, args ...string) {
			t.Helper()
			text := p.want(code, args...)
			if strings.Contains(text, canary) || strings.Contains(text, other) {
				t.Errorf("cosictl %s shows a secret:\n%s", strings.Join(args, " "), text)
			}
		}
		good := p.file("good.yaml", document(fmt.Sprintf(kind.good, canary)))
		changed := p.file("changed.yaml", document(fmt.Sprintf(kind.good, canary+other)))
		hidden(exitOK, "validate", "-f", good, "-f", defined)
		hidden(exitError, "diff", "-f", good)
		hidden(exitOK, "apply", "-f", good, "--dry-run")
		hidden(exitOK, "apply", "-f", good, "--set", "s")
		hidden(exitError, "diff", "-f", changed)
		hidden(exitOK, "apply", "-f", changed)
		for _, args := range [][]string{
			{"get", kind.name}, {"get", kind.name, kind.id}, {"describe", resource}, {"explain", kind.name}, {"why", resource}, {"why", resource, "-o", "json"}, {"export"}, {"schema"},
		} {
			hidden(exitOK, args...)
		}
		if text := p.want(exitOK, "get", resource, "-o", "yaml") + p.want(exitOK, "export", "--include-secrets"); strings.Count(text, canary) < 4 {
			t.Errorf("the secret is not there, this test finds nothing:\n%s", text)
		}
		bad := []string{
			"[" + canary + "]", canary, "{" + canary + ": 1}", "{" + kind.more + ": {" + canary + ": 1}}", "{" + kind.more + ": [" + canary + "]}",
			"{" + kind.more + ": !!int " + canary + "}", "{" + kind.more + ": *" + canary + "}", "{" + kind.more + ": &" + canary + " [*" + canary + "]}", "{" + kind.more + other + ": 1}",
			"{" + kind.more + ": \"" + canary, "{" + kind.more + ": 1, " + kind.more + ": " + canary + "}\n" + canary + ": x", "{numbers: [" + canary + "]}", "{numbers: {" + canary + ": 1}}",
			"{more: {" + canary + ": [1]}}", "{revoked: [" + canary + "]}",
		}
		switch kind.name {
		case "token":
			bad = append(bad, "{key: "+other+"}", "{more: {"+canary+": long-"+other+"}}")
		case "cert":
			bad = append(bad, "{client_cas: ["+strings.Repeat(canary+", ", 17)+"]}")
		case "registrycredentials":
			bad = append(bad, "{username: '"+canary+":', password: x}", "{username: x, password: \""+canary+"\\n\"}", "{username: x, password: x, ca: "+canary+"}")
		}
		for _, spec := range bad {
			file := p.file("bad.yaml", document(spec))
			hidden(exitError, "validate", "-f", file, "-f", defined)
			hidden(exitError, "apply", "-f", file)
			hidden(exitUsage, "diff", "-f", file)
		}
		hidden(exitOK, "delete", resource)
	}
}
