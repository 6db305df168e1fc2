package main

import (
	"context"
	"fmt"
	"os"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/tools/client"
)

// piece is how much of a file is pushed at once.
const piece = 512 << 10

// pusher pushes a file as chunks, one after the other. Without a file it does nothing.
type pusher struct {
	client *client.Client
	kind   *kinds.Kind
	file   *os.File
	size   int64
	id     string
	digest string
	there  []string // chunks on the node
	next   int64    // what was pushed ends here
}

func (d *delivery) pusher(ctx context.Context, c *client.Client) (*pusher, error) {
	p := &pusher{client: c, file: d.file, id: d.id, digest: d.digest, next: -1}
	if d.file == nil {
		return p, nil
	}
	info, err := d.file.Stat()
	if err != nil {
		return nil, err
	}
	p.size = info.Size()
	if p.kind, err = c.Kind(ctx, "UpgradeChunks.machine.cosi.dev"); err != nil {
		return nil, err
	}
	left, err := c.List(ctx, p.kind) // by one that was interrupted
	for _, r := range left {
		chunk := &machinepb.UpgradeChunk{}
		if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), chunk); err != nil {
			return nil, err
		}
		if chunk.GetUpgrade() == p.id {
			p.there = append(p.there, r.GetMetadata().GetId())
		}
	}
	return p, err
}

// push pushes the chunk that is wanted next, and removes those before.
func (p *pusher) push(ctx context.Context, offset int64) error {
	if p.file == nil || offset == p.next-piece || offset >= p.size {
		return nil // it is there already
	}
	if err := p.end(ctx); err != nil {
		return err
	}
	data := make([]byte, min(piece, p.size-offset))
	if _, err := p.file.ReadAt(data, offset); err != nil {
		return fmt.Errorf("%s: %w", p.file.Name(), err)
	}
	spec, err := proto.Marshal(&machinepb.UpgradeChunk{Upgrade: p.id, Digest: p.digest, Offset: uint64(offset), Size: uint64(p.size), Data: data})
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s-%d", p.id, offset)
	_, _, err = p.client.Apply(ctx, p.kind, &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: p.kind.Namespace(), Type: p.kind.Type(), Id: name, Version: "1", Phase: "running"},
		Spec:     &resourcepb.Spec{ProtoSpec: spec},
	})
	if err != nil {
		return err
	}
	p.there, p.next = append(p.there, name), offset+piece
	return nil
}

// end removes the chunks that are there. One that is gone, as after a reboot, is no error.
func (p *pusher) end(ctx context.Context) error {
	for _, name := range p.there {
		_, err := p.client.State.Destroy(ctx, &resourcepb.DestroyRequest{Namespace: p.kind.Namespace(), Type: p.kind.Type(), Id: name})
		if err != nil && client.Code(err) != codes.NotFound && !client.Lost(err) {
			return client.Explain(err)
		}
	}
	p.there = nil
	return nil
}
