package versions

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// plugin is the one in the extension.
const plugin = "marker"

// Extension makes a system extension at a path, with a plugin of the module in tree that brings kinds: the messages of a proto file whose header is
// left out of source.
func Extension(ctx context.Context, tree, path, source string) error {
	kinds, err := compile(ctx, source)
	if err != nil {
		return err
	}
	declaration, err := os.ReadFile(filepath.Join(tree, "plugins", plugin, "plugin.json"))
	if err != nil {
		return err
	}
	for file, data := range map[string][]byte{
		"extension-release.d/extension-release." + filepath.Base(path): []byte("ID=cosi\n"),
		"cosi/plugins/" + plugin + ".json":                             declaration,
		"cosi/plugins/" + plugin + ".binpb":                            kinds,
	} {
		file = filepath.Join(path, "usr/lib", file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			return err
		}
	}
	program, err := filepath.Abs(filepath.Join(path, "usr/lib/cosi/bin", plugin))
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./plugins/"+plugin+"/main")
	cmd.Dir, cmd.Env = tree, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// compile returns the descriptors of a source and of what it imports.
func compile(ctx context.Context, source string) ([]byte, error) {
	const name = "extension.proto"
	compiler := protocompile.Compiler{Resolver: protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
		if path == name {
			header := "syntax = \"proto3\";\npackage example;\nimport \"cosi/resource/meta/meta.proto\";\n"
			return protocompile.SearchResult{Source: strings.NewReader(header + source)}, nil
		}
		file, err := protoregistry.GlobalFiles.FindFileByPath(path)
		return protocompile.SearchResult{Desc: file}, err
	})}
	files, err := compiler.Compile(ctx, name)
	if err != nil {
		return nil, err
	}
	set := &descriptorpb.FileDescriptorSet{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		is := protodesc.ToFileDescriptorProto(file)
		for _, there := range set.File {
			if there.GetName() == is.GetName() {
				return
			}
		}
		set.File = append(set.File, is)
	}
	add(files[0])
	return proto.Marshal(set)
}
