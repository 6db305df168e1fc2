package log

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/change"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

// The blocks of a snapshot, in this order: for each kind, its resources as they were before its history, and the changes since then.
const (
	blockKind      = 1 // namespace, type, sequences of the last change and of the last that the history no longer has, number of resources
	blockResources = 2 // resources in the order of their ids
	blockHistory   = 3 // sequence and change, repeated
	blockEnd       = 4 // number of blocks before it
)

const (
	blockSize = 128 << 10 // as a rule
	// syncEvery is after how much of a snapshot the disk is waited for: much unwritten data would delay the fsyncs of writers.
	syncEvery = 4 << 20
)

// imageWriter writes the blocks of a snapshot.
type imageWriter struct {
	file     file
	seed     uint32
	size     int64
	synced   int64
	blocks   uint64
	buffer   []byte
	encoded  []byte // the last resource
	sequence uint64
	yield    func()
}

// writeImage writes what t holds into f and returns how long that is. All commits up to sequence are in it, and of each kind perhaps more.
// It calls yield after each block.
func writeImage(f file, t *memory.Table, sequence uint64, withHistory bool, yield func()) (size int64, err error) {
	h := header{magic: imageMagic, epoch: memory.Epoch(t.Epoch()), sequence: sequence}
	rand.Read(h.salt[:])
	w := &imageWriter{file: f, seed: h.seed(), size: headerSize, buffer: make([]byte, frameHeaderSize, 2*blockSize), yield: yield}
	if _, err := f.WriteAt(h.encode(), 0); err != nil {
		return 0, err
	}
	for _, name := range t.Kinds() {
		c := t.Contents(name)
		if !withHistory {
			c.History, c.Evicted = nil, c.Last
		}
		if err := w.kind(c); err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
	}
	w.buffer = binary.AppendUvarint(w.buffer, w.blocks)
	err = w.end(blockEnd)
	return w.size, err
}

// kind writes the blocks of one kind.
func (w *imageWriter) kind(c memory.Contents) (err error) {
	before := beforeHistory(c)
	for _, s := range []string{c.Kind.Namespace, c.Kind.Type} {
		w.buffer = append(binary.AppendUvarint(w.buffer, uint64(len(s))), s...)
	}
	for _, n := range []uint64{c.Last, c.Evicted, uint64(len(before))} {
		w.buffer = binary.AppendUvarint(w.buffer, n)
	}
	if err := w.end(blockKind); err != nil {
		return err
	}
	for _, r := range before {
		if err := w.resource(r); err != nil {
			return err
		}
		if err := w.endIfFull(blockResources); err != nil {
			return err
		}
	}
	if err := w.end(blockResources); err != nil {
		return err
	}
	for _, p := range c.History {
		w.buffer = binary.AppendUvarint(w.buffer, p.Sequence)
		if w.buffer, err = appendChange(w.buffer, changeOf(p.Event)); err != nil {
			return err
		}
		if err := w.endIfFull(blockHistory); err != nil {
			return err
		}
	}
	return w.end(blockHistory)
}

// resource writes one with its length in front.
func (w *imageWriter) resource(k encoded.Resource) (err error) {
	if w.encoded, err = k.Append(w.encoded[:0]); err != nil {
		return err
	}
	w.buffer = append(binary.AppendUvarint(w.buffer, uint64(len(w.encoded))), w.encoded...)
	return nil
}

func (w *imageWriter) endIfFull(sort uint32) error {
	if len(w.buffer) < blockSize {
		return nil
	}
	return w.end(sort)
}

// end writes the block in the buffer, unless it is empty.
func (w *imageWriter) end(sort uint32) error {
	if len(w.buffer) == frameHeaderSize {
		return nil
	}
	seal(w.buffer, w.seed, sort, w.blocks)
	if _, err := w.file.WriteAt(w.buffer, w.size); err != nil {
		return err
	}
	w.size += int64(len(w.buffer))
	w.blocks++
	w.buffer = w.buffer[:frameHeaderSize]
	w.yield()
	if w.size-w.synced < syncEvery {
		return nil
	}
	w.synced = w.size
	return w.file.Sync()
}

// beforeHistory returns the resources as they were before the first event that the history has, in the order of their ids.
func beforeHistory(c memory.Contents) []encoded.Resource {
	was := map[string]*resourcepb.Resource{}
	for _, p := range slices.Backward(c.History) {
		was[p.Event.GetResource().GetMetadata().GetId()] = changeOf(p.Event).Before
	}
	before := make([]encoded.Resource, 0, len(c.Resources))
	for _, k := range c.Resources {
		if _, ok := was[k.ID()]; !ok {
			before = append(before, k)
		}
	}
	for _, earlier := range was {
		if earlier != nil {
			before = append(before, encoded.Of(earlier))
		}
	}
	slices.SortFunc(before, func(a, b encoded.Resource) int { return strings.Compare(a.ID(), b.ID()) })
	return before
}

// changeOf returns the change that e tells of.
func changeOf(e *state.Event) change.Change {
	switch e.GetEventType() {
	case resourcepb.EventType_CREATED:
		return change.Change{After: e.GetResource()}
	case resourcepb.EventType_DESTROYED:
		return change.Change{Before: e.GetResource()}
	default:
		return change.Change{Before: e.GetOld(), After: e.GetResource()}
	}
}

// image is a snapshot that has been read into a table.
type image struct {
	header header
	// through is the last change of each kind that is in it.
	through map[state.Kind]uint64
	last    uint64 // change in it
	size    int64
}

// readImage reads a snapshot into a table with its epoch, made by table. It fails with a DamagedError, or ErrVersion.
func readImage(name string, f io.ReaderAt, table func(header) *memory.Table) (*image, error) {
	data := make([]byte, headerSize)
	if n, err := f.ReadAt(data, 0); n < len(data) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	h, err := readHeader(name, imageMagic, data)
	if err != nil {
		return nil, err
	}
	if fileName(h.sequence, imageSuffix) != name {
		return nil, &DamagedError{name, 0, fmt.Sprintf("it is the snapshot of commit %d", h.sequence)}
	}
	r := &imageReader{image: image{header: h, through: map[state.Kind]uint64{}}, table: table(h), decoder: newDecoder()}
	blocks := blockReader{name: name, file: f, seed: h.seed(), offset: headerSize}
	for !r.ended {
		block, err := blocks.next()
		if err != nil {
			return nil, err
		}
		if err := r.block(block); err != nil {
			return nil, &DamagedError{name, blocks.offset - int64(block.size()), err.Error()}
		}
	}
	r.last = max(r.last, h.sequence)
	r.size = blocks.offset
	return &r.image, nil
}

// blockReader reads the blocks of a snapshot one by one, so that it is never in memory as a whole.
type blockReader struct {
	name   string
	file   io.ReaderAt
	seed   uint32
	offset int64
	number uint64
	buffer []byte
}

// next returns the next block. Its content is valid until the next one is read.
func (b *blockReader) next() (frame, error) {
	buffer := slices.Grow(b.buffer[:0], frameHeaderSize)[:frameHeaderSize]
	for range 2 {
		if n, err := b.file.ReadAt(buffer, b.offset); n < len(buffer) && !errors.Is(err, io.EOF) {
			return frame{}, fmt.Errorf("%s: %w", b.name, err)
		} else if n < len(buffer) {
			return frame{}, &DamagedError{b.name, b.offset, "it ends in the middle"}
		}
		if len(buffer) > frameHeaderSize {
			break
		}
		length, wrong := frameLength(buffer, b.seed)
		if wrong != "" {
			return frame{}, &DamagedError{b.name, b.offset, wrong}
		}
		buffer = slices.Grow(buffer, length)[:frameHeaderSize+length]
	}
	b.buffer = buffer
	f, wrong := readFrame(buffer, b.seed)
	if wrong == "" && f.sequence != b.number {
		wrong = fmt.Sprintf("block %d is where %d should be", f.sequence, b.number)
	}
	if wrong != "" {
		return frame{}, &DamagedError{b.name, b.offset, wrong}
	}
	b.offset += int64(f.size())
	b.number++
	return f, nil
}

// imageReader puts blocks into a table.
type imageReader struct {
	image
	table   *memory.Table
	decoder *decoder
	ended   bool

	kind      state.Kind
	evicted   uint64
	previous  uint64 // sequence of the last change
	left      uint64 // resources of the kind that are to come
	resources []encoded.Resource
}

func (r *imageReader) block(b frame) error {
	if r.left > 0 && b.count != blockResources {
		return fmt.Errorf("%d resources of %s are missing", r.left, r.kind)
	}
	switch b.count {
	case blockKind:
		return r.begin(b.content)
	case blockResources:
		return r.more(b.content)
	case blockHistory:
		return r.history(b.content)
	case blockEnd:
		if n, _ := binary.Uvarint(b.content); n != b.sequence {
			return fmt.Errorf("it ends with %d blocks, not %d", b.sequence, n)
		}
		r.ended = true
		return nil
	default:
		return fmt.Errorf("there are no blocks of sort %d", b.count)
	}
}

// begin reads the block at the beginning of a kind.
func (r *imageReader) begin(b []byte) (err error) {
	for _, s := range []*string{&r.kind.Namespace, &r.kind.Type} {
		var field []byte
		if field, b, err = cut(b); err != nil {
			return err
		}
		*s = string(field)
	}
	var last uint64
	for _, number := range []*uint64{&last, &r.evicted, &r.left} {
		value, n := binary.Uvarint(b)
		if n <= 0 {
			return errContent
		}
		*number, b = value, b[n:]
	}
	if _, twice := r.through[r.kind]; twice {
		return fmt.Errorf("%s occurs twice", r.kind)
	}
	r.through[r.kind] = last
	r.last = max(r.last, last)
	r.previous, r.resources = r.evicted, nil
	if r.left == 0 {
		return r.table.Restore(r.kind, nil, r.evicted)
	}
	return nil
}

// more reads resources of the kind, and restores it when they are complete.
func (r *imageReader) more(b []byte) error {
	if r.resources == nil {
		r.resources = make([]encoded.Resource, 0, min(r.left, 1<<14))
	}
	for len(b) > 0 {
		data, rest, err := cut(b)
		if err != nil {
			return err
		}
		resource, kind, err := memory.KeepEncoded(data)
		if err != nil {
			return fmt.Errorf("%w: %w", errContent, err)
		}
		if r.left == 0 || kind != r.kind {
			return fmt.Errorf("%s/%s is not one of the resources announced", kind, resource.ID())
		}
		r.resources = append(r.resources, resource)
		r.left--
		b = rest
	}
	if r.left > 0 {
		return nil
	}
	return r.table.Restore(r.kind, r.resources, r.evicted)
}

// history reads changes and applies them.
func (r *imageReader) history(b []byte) error {
	for len(b) > 0 {
		sequence, n := binary.Uvarint(b)
		if n <= 0 || sequence <= r.previous || sequence > r.through[r.kind] {
			return fmt.Errorf("%w: commit %d follows %d", errContent, sequence, r.previous)
		}
		p, after, rest, err := r.decoder.change(b[n:])
		if err != nil {
			return err
		}
		if p.Kind != r.kind {
			return fmt.Errorf("%w: %s is not of the kind", errContent, p)
		}
		if err := replay(r.table, sequence, p, after); err != nil {
			return err
		}
		r.previous, b = sequence, rest
	}
	return nil
}
