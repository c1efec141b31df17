package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

const (
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociConfig   = "application/vnd.oci.image.config.v1+json"
	ociLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// registry is the distribution project's registry, with a server before it that
// counts what it sends.
type registry struct {
	*httptest.Server
	user string // "name:password", "" where anybody may read

	mu sync.Mutex
	// mu guards the following.
	sent map[string]int64 // body bytes by path of GET
}

// host is the registry's name as images have it.
func (r *registry) host() string { return strings.TrimPrefix(r.URL, "http://") }

// total returns how many bytes of a digest's content were sent, from whatever
// repository.
func (r *registry) total(digest string) (n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for path, sent := range r.sent {
		if strings.HasSuffix(path, digest) {
			n += sent
		}
	}
	return n
}

// newRegistry starts a registry that ends with the test. With a user, whose
// password is "secret", it shows nothing to others.
func newRegistry(t *testing.T, user string) *registry {
	need(t, "docker-registry")
	dir := newTool(t)
	addr := "127.0.0.1:" + freePorts(t, 1)[0]
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %s}\nhttp: {addr: %q, secret: s}\n", dir.path("data"), addr)
	r := &registry{sent: map[string]int64{}}
	if user != "" {
		r.user = user + ":secret"
		file := dir.write(t, "htpasswd", []byte(user+":$2a$04$73PGbyApQmOGQPlkHhAhW.8yocn5NaBOcC7/Lnzne9ONE5wHqM.x.\n"))
		config += fmt.Sprintf("auth:\n  htpasswd: {realm: r, path: %s}\n", file)
	}
	run(t, dir, addr, "docker-registry", "serve", dir.write(t, "config.yml", []byte(config)))
	upstream := &url.URL{Scheme: "http", Host: addr}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) { pr.SetURL(upstream); pr.Out.Host = pr.In.Host },
		ModifyResponse: func(res *http.Response) error {
			if res.Request.Method == http.MethodGet {
				res.Body = &countedBody{res.Body, r, res.Request.URL.Path}
			}
			return nil
		},
	}
	r.Server = httptest.NewServer(proxy)
	t.Cleanup(r.Close)
	return r
}

type countedBody struct {
	io.ReadCloser
	of   *registry
	path string
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.of.mu.Lock()
	b.of.sent[b.path] += int64(n)
	b.of.mu.Unlock()
	return n, err
}

// run starts a server that ends with the test, and returns when it listens at
// addr, or at a socket where that is a path.
func run(t *testing.T, dir tool, addr, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir.dir, dir.env
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, tail(log.Bytes(), 3000))
		}
	})
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	p2ptest.Eventually(t, 20*time.Second, func() bool {
		conn, err := new(net.Dialer).DialContext(t.Context(), network, addr)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, name+" listens")
}

// image is one with a single layer of one file.
type image struct {
	layer, config, manifest                   []byte
	layerDigest, configDigest, manifestDigest string
}

func newImage(t *testing.T, seed uint64, size int) image {
	data := p2ptest.Bytes(seed, size)
	var plain, packed bytes.Buffer
	w := tar.NewWriter(&plain)
	err := w.WriteHeader(&tar.Header{Name: "data", Mode: 0o644, Size: int64(size)})
	if err == nil {
		_, err = w.Write(data)
	}
	if err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(plain.Bytes()); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	m := image{layer: packed.Bytes()}
	m.layerDigest = digestOf(m.layer)
	m.config = marshal(t, map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digestOf(plain.Bytes())}},
	})
	m.configDigest = digestOf(m.config)
	descriptor := func(kind, digest string, of []byte) map[string]any {
		return map[string]any{"mediaType": kind, "digest": digest, "size": len(of)}
	}
	m.manifest = marshal(t, map[string]any{
		"schemaVersion": 2, "mediaType": ociManifest, "config": descriptor(ociConfig, m.configDigest, m.config),
		"layers": []any{descriptor(ociLayer, m.layerDigest, m.layer)},
	})
	m.manifestDigest = digestOf(m.manifest)
	return m
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func marshal(t *testing.T, v any) []byte {
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// push uploads an image as name:v1.
func (r *registry) push(t *testing.T, name string, m image) {
	t.Helper()
	for digest, blob := range map[string][]byte{m.layerDigest: m.layer, m.configDigest: m.config} {
		res := r.do(t, http.MethodPost, r.URL+"/v2/"+name+"/blobs/uploads/", nil)
		u, err := res.Location()
		if err != nil {
			t.Fatalf("begin an upload: %s, %v", res.Status, err)
		}
		q := u.Query()
		q.Set("digest", digest)
		u.RawQuery = q.Encode()
		if res := r.do(t, http.MethodPut, u.String(), blob); res.StatusCode != http.StatusCreated {
			t.Fatalf("upload a blob: %s", res.Status)
		}
	}
	if res := r.do(t, http.MethodPut, r.URL+"/v2/"+name+"/manifests/v1", m.manifest); res.StatusCode != http.StatusCreated {
		t.Fatalf("upload a manifest: %s", res.Status)
	}
}

func (r *registry) do(t *testing.T, method, url string, body []byte) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	if strings.Contains(url, "/manifests/") {
		req.Header.Set("Content-Type", ociManifest)
	}
	if name, password, ok := strings.Cut(r.user, ":"); ok {
		req.SetBasicAuth(name, password)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res
}
