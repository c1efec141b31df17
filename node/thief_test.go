package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// outsider is a reader that speaks the protocol, but is no node of ours: it sends
// what it likes.
type outsider struct {
	host   host.Host
	client *rangeread.Client
}

func newOutsider(t *testing.T, v *vault) outsider {
	t.Helper()
	h := p2ptest.Hosts(t, 1)[0]
	for _, n := range v.nodes {
		info, err := peer.AddrInfoFromString(n.Info().Addrs[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Connect(t.Context(), *info); err != nil {
			t.Fatal(err)
		}
	}
	c := rangeread.NewClient(rangeread.ClientConfig{Host: h, Trusted: func(peer.ID) bool { return true }})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return outsider{h, c}
}

// read returns the bytes that a request gets, and its header.
func (o outsider) read(t *testing.T, from *node.Node, req rangeread.Request) ([]byte, rangeread.Header, error) {
	t.Helper()
	id, err := peer.Decode(from.Info().Peer)
	if err != nil {
		t.Fatal(err)
	}
	body, err := o.client.Open(t.Context(), id, req)
	if err != nil {
		return nil, rangeread.Header{}, err
	}
	defer func() { _ = body.Close() }()
	var data []byte
	for req.Range.Len > 0 && int64(len(data)) < req.Range.Len {
		p, err := body.Next(nil)
		if err != nil {
			return data, body.Header, err
		}
		data = append(data, p.Data...)
	}
	return data, body.Header, nil
}

// TestThief: a reader that never asks, asks with a bad credential, or shows a
// grant that is not for it, gets no byte of a private file and nothing that its
// origin said of it, from seeds and from holders, whatever it asks for; with a
// grant of its own it does, until that expires.
func TestThief(t *testing.T) {
	const life = 8 * time.Second
	v := newVault(t, func(c *node.Config) { c.GrantLife = life })
	data := p2ptest.Bytes(9, 2<<20)
	address := v.put("/file", data)
	other := v.origin.Put("/other", p2ptest.Object{Data: data, ETag: `"/file"`}) // of the same generation
	v.allow(true, "good")
	for n := range v.nodes {
		v.wantFile(n, address, http.Header{"Authorization": {"good"}}, data)
	}
	friend, thief := newOutsider(t, v), newOutsider(t, v)
	task, err := content.NewTask(address, content.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(url, credential string) rangeread.Request {
		task, err := content.NewTask(url, content.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		return rangeread.Request{Task: task.ID, Authorize: true, Origin: &rangeread.Origin{URL: url, Header: []rangeread.Field{{Name: "Authorization", Value: credential}}, Size: -1}}
	}
	granted := func(o outsider, url string) ([]byte, content.Generation) {
		_, h, err := o.read(t, v.nodes[0], ask(url, "good"))
		if err != nil || !h.Private || len(h.Grant) == 0 {
			t.Fatalf("no grant for a good credential: %+v, %v", h, err)
		}
		return h.Grant, h.Generation
	}
	start := time.Now()
	grant, generation := granted(friend, address)
	elsewhere, _ := granted(thief, other)
	bytesBefore := v.origin.Bytes("/file")

	for n, from := range v.nodes {
		var answer *rangeread.Error
		_, _, err := thief.read(t, from, ask(address, "bad"))
		if want := rangeread.StatusOriginError; n < seeds && (!errors.As(err, &answer) || answer.Status != want || answer.OriginStatus != 401) {
			t.Errorf("node %d: a bad credential: %v", n, err)
		}
		if n >= seeds {
			if _, h, err := friend.read(t, from, ask(address, "good")); err == nil {
				t.Errorf("node %d, no seed, granted %x", n, h.Grant)
			}
		}
		for name, g := range thief.attempts(t, task, generation, grant, elsewhere) {
			for what, req := range requestsFor(task, address, generation, g) {
				got, h, err := thief.read(t, from, req)
				if !errors.As(err, &answer) || answer.Status != rangeread.StatusGrant && answer.Status != rangeread.StatusNotFound && answer.Status != rangeread.StatusOriginError ||
					len(got) > 0 || h.Size != 0 || h.ETag != "" {
					t.Errorf("node %d, %s, %s: %d bytes, %+v, %v", n, name, what, len(got), h, err)
				}
			}
		}
		got, _, err := friend.read(t, from, rangeread.Request{Task: task.ID, Range: content.Range{Len: 1 << 20}, NoFill: true, Grant: grant})
		if time.Since(start) < life/2 && (err != nil || !bytes.Equal(got, data[:1<<20])) {
			t.Errorf("node %d: with a good grant %d bytes, %v", n, len(got), err)
		}
	}
	for _, from := range v.nodes {
		p2ptest.Eventually(t, 30*time.Second, func() bool {
			_, _, err := friend.read(t, from, rangeread.Request{Task: task.ID, Range: content.Range{Len: 1}, NoFill: true, Grant: grant})
			return rangeread.StatusOf(err) == rangeread.StatusGrant
		}, "a grant expires")
	}
	if got := v.origin.Bytes("/file"); got != bytesBefore {
		t.Errorf("%d bytes left the origin for a thief", got-bytesBefore)
	}
}

// attempts are grants that are worth nothing to who shows them.
func (o outsider) attempts(t *testing.T, task content.Task, generation content.Generation, stolen, elsewhere []byte) map[string][]byte {
	t.Helper()
	sign := func(key crypto.PrivKey, issuer peer.ID) []byte {
		g, err := content.SignGrant(key, issuer, content.Grant{
			Task: task.ID, Generation: generation, Upstream: "http://127.0.0.1", Peer: o.host.ID(), Expires: time.Now().Add(time.Minute).Unix(),
		})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	real, err := content.ParseGrant(stolen)
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(stolen)
	flipped[len(flipped)-1] ^= 1
	own := o.host.Peerstore().PrivKey(o.host.ID())
	return map[string][]byte{
		"no grant": nil, "a stolen grant": stolen, "a grant for another file": elsewhere, "a grant of its own making": sign(own, o.host.ID()),
		"a grant in a seed's name": sign(own, real.Issuer), "a grant with another signature": flipped, "no grant at all": []byte("let me in"),
	}
}

// requestsFor are ways to ask for a file or what is known of it.
func requestsFor(task content.Task, address string, generation content.Generation, grant []byte) map[string]rangeread.Request {
	origin := &rangeread.Origin{URL: address, Size: -1}
	with := &rangeread.Origin{URL: address, Size: -1, Header: []rangeread.Field{{Name: "Authorization", Value: "bad"}}}
	one := content.Range{Len: 1}
	out := map[string]rangeread.Request{}
	for i, req := range []rangeread.Request{
		{NoFill: true},
		{NoFill: true, Range: one},
		{NoFill: true, Range: content.Range{Len: 1 << 20}, Small: true},
		{NoFill: true, Range: one, Generation: generation},
		{Range: one, Origin: origin},
		{Range: one, Origin: origin, Generation: generation},
		{Range: one, Origin: origin, Validate: true, Fields: true},
		{Range: one, Origin: with},
		{Origin: with, Fields: true},
		{Range: content.Range{Len: 1 << 20}, Origin: with, FillOnly: true},
		{Range: one, NoFill: true, FillOnly: true},
		{Range: content.Range{Off: 1 << 40, Len: 1}, NoFill: true},
	} {
		req.Task, req.Grant = task.ID, grant
		out[fmt.Sprint("request ", i)] = req
	}
	return out
}
