package node_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// shortLived makes a file that is current for a second.
func (v *vault) shortLived(path, tag string, data []byte) string {
	return v.origin.Put(path, p2ptest.Object{Data: data, ETag: `"` + tag + `"`, Header: http.Header{"Cache-Control": {"max-age=1"}}})
}

// outlive waits until files of shortLived that are here have gone stale.
func outlive(t *testing.T) {
	t.Helper()
	stale := time.Now().Add(1500 * time.Millisecond)
	p2ptest.Eventually(t, time.Minute, func() bool { return time.Now().After(stale) }, "the files go stale")
}

// blobPath is where a registry has a blob.
func blobPath(data []byte) string {
	sum := sha256.Sum256(data)
	return "/v2/app/blobs/sha256:" + hex.EncodeToString(sum[:])
}

// TestPublicBecomesPrivate: a node that holds as public what has become private
// serves it to nobody without credentials once it has gone stale.
func TestPublicBecomesPrivate(t *testing.T) {
	v := newVault(t, nil)
	data := p2ptest.Bytes(11, 1<<20+5)
	address := v.shortLived("/file", "1", data)
	v.allow(true, "")
	for n := range v.nodes {
		v.wantFile(n, address, nil, data)
	}
	v.allow(false, "")
	v.allow(true, "good")
	outlive(t)
	for n := range seeds { // the head learns it
		v.wantFile(n, address, http.Header{"Authorization": {"good"}}, data)
	}
	for n := range v.nodes {
		v.wantRefused(n, address, nil, http.StatusUnauthorized)
	}
}

// TestPrivateChanges: who may read a private file gets the new version once the
// old one is stale, though his grant is for the old one.
func TestPrivateChanges(t *testing.T) {
	v := newVault(t, nil)
	header := http.Header{"Authorization": {"good"}}
	v.allow(true, "good", "other")
	data := p2ptest.Bytes(12, 1<<20+5)
	address := v.shortLived("/file", "1", data)
	for n := range v.nodes {
		v.wantFile(n, address, header, data)
	}
	changed := p2ptest.Bytes(13, 1<<20+7)
	v.shortLived("/file", "2", changed)
	outlive(t)
	for n := range seeds { // the head learns it
		_, _ = askProxy(t, v.nodes[n], address, http.Header{"Authorization": {"other"}})
	}
	for n := range v.nodes {
		res, body := askProxy(t, v.nodes[n], address, header)
		if res.StatusCode != http.StatusOK || !bytes.Equal(body, changed) {
			t.Errorf("node %d: %s, %d bytes from %q, the new version has %d", n, res.Status, len(body), res.Header.Get("P2pnode-Source"), len(changed))
		}
	}
}

// TestPrivateOtherUpstream: an upstream that gives a digest to anybody does not
// make that public which came from another.
func TestPrivateOtherUpstream(t *testing.T) {
	v := newVault(t, nil)
	data := p2ptest.Bytes(14, 1<<20+5)
	path := blobPath(data)
	address := v.put(path, data)
	v.allow(true, "good")
	for n := range v.nodes {
		v.wantFile(n, address, http.Header{"Authorization": {"good"}}, data)
	}
	evil := p2ptest.NewOrigin(t)
	lie := evil.Put(path, p2ptest.Object{Data: make([]byte, len(data)), ETag: `"lie"`})
	for n, node := range v.nodes {
		_, body := askProxy(t, node, lie, http.Header{"Cache-Control": {"no-cache"}}) // so that the head asks
		if bytes.Equal(body, data) {
			t.Errorf("node %d: the file is served on another upstream's word", n)
		}
	}
	for n := range v.nodes {
		v.wantRefused(n, address, nil, http.StatusUnauthorized)
	}
}

// TestGrantDropsNoPublicDigest: a grant from an upstream that wants credentials
// for a digest makes nobody drop what another gives to anybody.
func TestGrantDropsNoPublicDigest(t *testing.T) {
	v := newVault(t, nil)
	data := p2ptest.Bytes(15, 1<<20)
	path := blobPath(data)
	closed := v.put(path, data)
	v.allow(true, "good")
	task, err := content.NewTask(closed, content.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	o := newOutsider(t, v)
	_, h, err := o.read(t, v.nodes[0], rangeread.Request{Task: task.ID, Authorize: true, Origin: &rangeread.Origin{
		URL: closed, Header: []rangeread.Field{{Name: "Authorization", Value: "good"}}, Size: -1,
	}})
	if err != nil || len(h.Grant) == 0 {
		t.Fatalf("no grant: %+v, %v", h, err)
	}
	open := p2ptest.NewOrigin(t)
	address := open.Put(path, p2ptest.Object{Data: data, ETag: `"x"`, Header: http.Header{"Cache-Control": {"max-age=3600"}}})
	for n := range v.nodes {
		v.wantFile(n, address, nil, data)
	}
	for n, from := range v.nodes {
		for what, grant := range map[string][]byte{"with": h.Grant, "then without": nil} {
			req := rangeread.Request{Task: task.ID, Range: content.Range{Len: 1 << 20}, NoFill: true, Grant: grant}
			if got, _, err := o.read(t, from, req); err != nil || !bytes.Equal(got, data) {
				t.Errorf("node %d, %s a grant: %d bytes, %v", n, what, len(got), err)
			}
		}
	}
}

// TestPublicWhileOriginStumbles: that an origin fails for a moment to say what it
// gives to who has no credentials does not make a file private that it has given
// to anybody.
func TestPublicWhileOriginStumbles(t *testing.T) {
	v := newVault(t, nil)
	data := p2ptest.Bytes(16, 2<<20)
	address := v.put("/public", data)
	for n := range seeds {
		v.wantFile(n, address, nil, data)
	}
	v.origin.SetFault(func(r *http.Request) p2ptest.Fault {
		if r.Method == http.MethodHead && r.Header.Get("Authorization") == "" {
			return p2ptest.Fault{Status: http.StatusServiceUnavailable}
		}
		return p2ptest.Fault{}
	})
	v.wantFile(seeds, address, http.Header{"Authorization": {"any"}}, data)
	v.wantFile(seeds+1, address, nil, data)
	v.wantOnce("/public", data)
}
