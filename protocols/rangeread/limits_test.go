package rangeread_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// file is a Handler with one block.
type file struct {
	data     []byte
	meta     content.Meta
	seal     content.Seal
	outboard []byte
}

func newFile(t *testing.T, key crypto.PrivKey, signer peer.ID) *file {
	t.Helper()
	f := &file{data: p2ptest.Bytes(3, content.BlockSize)}
	gen, _ := content.NewGeneration(`"x"`, "", content.BlockSize)
	f.meta = content.Meta{Size: content.BlockSize, Generation: gen}
	ob, root := content.Outboard(f.data)
	name := content.BlockName{Generation: gen, FileSize: content.BlockSize}
	seal, err := content.SealBlock(key, signer, name, root)
	if err != nil {
		t.Fatal(err)
	}
	f.seal, f.outboard = seal, ob
	return f
}

func (f *file) Serve(_ context.Context, _ peer.ID, _ rangeread.Request, a *rangeread.Answer) error {
	r, err := a.Header(rangeread.Header{Meta: f.meta})
	if err != nil {
		return err
	}
	return a.Complete(0, r.End(), f.seal, f.outboard, func(p []byte, off int64) error {
		copy(p, f.data[off:])
		return nil
	})
}

// node is a node's host, with its default limits.
func node(t *testing.T, listen string) (*host.Host, crypto.PrivKey) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := ma.NewMultiaddr(listen)
	if err != nil {
		t.Fatal(err)
	}
	h, err := host.New(host.Config{Key: key, Listen: []ma.Multiaddr{addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h, key
}

// A thousand concurrent reads between two nodes all succeed, over either
// transport, within the limits that nodes have; some wait.
func TestThousandReads(t *testing.T) {
	for _, listen := range []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"} {
		t.Run(listen, func(t *testing.T) {
			source, key := node(t, listen)
			reader, _ := node(t, listen)
			f := newFile(t, key, source.ID())
			ctx, cancel := context.WithCancel(context.Background())
			srv := rangeread.NewServer(rangeread.ServerConfig{Host: source, Handler: f})
			client := rangeread.NewClient(rangeread.ClientConfig{
				Host: reader, Silence: time.Minute, Trusted: func(id peer.ID) bool { return id == source.ID() },
			})
			var runs sync.WaitGroup
			runs.Go(func() { _ = srv.Run(ctx) })
			runs.Go(func() { _ = client.Run(ctx) })
			defer runs.Wait()
			defer cancel()
			if err := reader.Connect(ctx, peer.AddrInfo{ID: source.ID(), Addrs: source.Addrs()}); err != nil {
				t.Fatal(err)
			}
			var reads sync.WaitGroup
			begin := make(chan struct{})
			for i := range 1000 {
				reads.Go(func() {
					<-begin
					off := int64(i) * 1000
					if err := f.read(ctx, client, source.ID(), content.Range{Off: off, Len: 40000}); err != nil {
						t.Errorf("read %d: %v", i, err)
					}
				})
			}
			close(begin)
			reads.Wait()
		})
	}
}

// read reads a range and compares it with the file.
func (f *file) read(ctx context.Context, c *rangeread.Client, from peer.ID, r content.Range) error {
	b, err := c.Open(ctx, from, rangeread.Request{Range: r})
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	var n int64
	for {
		p, err := b.Next(nil)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if !bytes.Equal(p.Data, f.data[p.Off:p.Off+int64(len(p.Data))]) {
			return errors.New("wrong bytes")
		}
		n += int64(len(p.Data))
	}
	if want := rangeread.Widen(r, f.meta.Size).Len; n != want {
		return fmt.Errorf("%d bytes, want %d", n, want)
	}
	return nil
}
