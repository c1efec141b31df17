package e2e

import (
	"encoding/xml"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime"
	"strings"
	"testing"
)

// images is what the tests of the registry mirror share.
type images struct {
	*swarm
	public, private *registry
}

// TestImageClients pulls images through the mirrors of two daemons, with the
// tools that people have. See TestClients.
func TestImageClients(t *testing.T) {
	s := &images{public: newRegistry(t, ""), private: newRegistry(t, "someone")}
	s.swarm = newSwarm(t, binary(t, ""), 2, 2, "--registry", "public.test="+s.public.URL)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *images)
	}{{"crane", testCrane}, {"skopeo", testSkopeo}, {"containerd", testContainerd}, {"containerd private", testContainerdPrivate}, {"conformance", testConformance}} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s) })
	}
}

// wantOnce wants the registry to have sent each blob of an image, and its
// manifest, once.
func (s *images) wantOnce(t *testing.T, m image) {
	t.Helper()
	for digest, data := range map[string][]byte{m.layerDigest: m.layer, m.configDigest: m.config, m.manifestDigest: m.manifest} {
		if n := s.public.total(digest); n != int64(len(data)) {
			t.Errorf("the registry sent %d bytes of %s, which has %d", n, digest, len(data))
		}
	}
}

// name returns what an image is called at the mirror of a daemon.
func (s *images) name(d *process, repository string) string {
	return strings.TrimPrefix(d.Proxy, "http://") + "/public.test/" + repository + ":v1"
}

// testCrane pulls an image from one repository here and from another there: its
// blobs are one task each.
func testCrane(t *testing.T, s *images) {
	need(t, "crane")
	m := newImage(t, 31, 9<<20)
	for i, d := range s.daemons {
		repository := []string{"crane/one", "crane/two"}[i]
		s.public.push(t, repository, m)
		crane := newTool(t)
		crane.run(t, "crane", "pull", "--insecure", "--format=oci", s.name(d, repository), "out")
		wantLayout(t, crane, "out/blobs/sha256/", m)
	}
	s.wantOnce(t, m)
}

func wantLayout(t *testing.T, c tool, prefix string, m image) {
	t.Helper()
	for digest, data := range map[string][]byte{m.layerDigest: m.layer, m.configDigest: m.config, m.manifestDigest: m.manifest} {
		c.wantFile(t, prefix+strings.TrimPrefix(digest, "sha256:"), data)
	}
}

func testSkopeo(t *testing.T, s *images) {
	need(t, "skopeo")
	m := newImage(t, 32, 9<<20)
	s.public.push(t, "skopeo", m)
	for _, d := range s.daemons {
		skopeo := newTool(t)
		skopeo.run(t, "skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false", "docker://"+s.name(d, "skopeo"), "dir:out")
		skopeo.wantFile(t, "out/"+strings.TrimPrefix(m.layerDigest, "sha256:"), m.layer)
		skopeo.wantFile(t, "out/manifest.json", m.manifest)
	}
	s.wantOnce(t, m)
}

// containerd is a containerd of its own, whose registry is mirrored by a daemon.
type containerd struct{ tool }

func newContainerd(t *testing.T, d *process, r *registry) containerd {
	need(t, "containerd", "ctr")
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("containerd runs as root alone")
	}
	c := containerd{newTool(t)}
	c.write(t, "config.toml", []byte("version = 2\nroot = \""+c.path("root")+"\"\nstate = \""+c.path("state")+"\"\n"+
		"disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = \""+c.path("sock")+"\"\n"))
	run(t, c.tool, c.path("sock"), "containerd", "--config", c.path("config.toml"))
	c.tool.run(t, d.bin, "mirror", "install", "--containerd", "--config-path", c.path("certs"), "--proxy", d.Proxy, r.host()+"="+r.URL)
	return c
}

func (c containerd) ctr(t *testing.T, args ...string) ([]byte, error) {
	return c.try(t, "ctr", append([]string{"-a", c.path("sock")}, args...)...)
}

// pull pulls name:v1 with further arguments, unpacked.
func (c containerd) pull(t *testing.T, name string, more ...string) error {
	args := append([]string{"images", "pull", "--hosts-dir", c.path("certs"), "--snapshotter", "native"}, more...)
	_, err := c.ctr(t, append(args, name)...)
	return err
}

// wantLayer wants the layer to be held.
func (c containerd) wantLayer(t *testing.T, m image) {
	t.Helper()
	got, err := c.ctr(t, "content", "get", m.layerDigest)
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, "layer", got, m.layer)
}

func testContainerd(t *testing.T, s *images) {
	m := newImage(t, 33, 9<<20)
	s.public.push(t, "ctr/app", m)
	for _, d := range s.daemons {
		c := newContainerd(t, d, s.public)
		if err := c.pull(t, s.public.host()+"/ctr/app:v1"); err != nil {
			t.Fatal(err)
		}
		c.wantLayer(t, m)
	}
	s.wantOnce(t, m)
}

// testContainerdPrivate: what the registry shows to one user leaves it once for
// all of that user's machines, and is shown to nobody else.
func testContainerdPrivate(t *testing.T, s *images) {
	m := newImage(t, 34, 3<<20)
	s.private.push(t, "ctr/secret", m)
	name := s.private.host() + "/ctr/secret:v1"
	for i, d := range s.daemons {
		before := d.metric(t, "p2pnode_proxy_requests_total")
		c := newContainerd(t, d, s.private)
		if err := c.pull(t, name, "--user", s.private.user); err != nil {
			t.Fatal(err)
		}
		c.wantLayer(t, m)
		if d.metric(t, "p2pnode_proxy_requests_total") < before+4 {
			t.Error("the image did not come through the mirror")
		}
		if n := s.private.total(m.layerDigest); n != int64(len(m.layer)) {
			t.Errorf("the registry sent %d bytes of a layer of %d to %d clients", n, len(m.layer), i+1)
		}
		if err := newContainerd(t, d, s.private).pull(t, name); err == nil {
			t.Error("an image that wants a password was pulled without one")
		}
	}
	// Nor is it had from a daemon by its digest alone.
	url := "/v2/ctr/secret/blobs/" + m.layerDigest + "?ns=" + s.private.host()
	curl := newTool(t)
	need(t, "curl")
	for _, d := range s.daemons {
		if got := curl.run(t, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", d.Proxy+url); string(got) != "401" {
			t.Errorf("a private layer without a password: %s, want 401", got)
		}
	}
}

// testConformance runs the specification's own suite twice: against a registry,
// and against a server that sends pulls to the mirror of that registry and all
// else, pushes above all, to itself, so that what is pulled is compared with what
// was pushed. What the registry passes the mirror has to pass. Deletions are left
// out: what a digest names is still good at the mirror when it was deleted at the
// registry.
func testConformance(t *testing.T, s *images) {
	need(t, "conformance")
	direct, fresh := newRegistry(t, ""), newRegistry(t, "")
	mirror, err1 := url.Parse(s.daemons[0].Proxy)
	upstream, err2 := url.Parse(fresh.URL)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	srv := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(pr *httputil.ProxyRequest) {
		pull := pr.In.Method == http.MethodGet || pr.In.Method == http.MethodHead
		if !pull || strings.Contains(pr.In.URL.Path, "/uploads/") {
			pr.SetURL(upstream)
			pr.Out.Host = pr.In.Host // for the Location of an upload
			return
		}
		pr.SetURL(mirror)
		query := pr.Out.URL.Query()
		query.Set("ns", fresh.host())
		pr.Out.URL.RawQuery = query.Encode()
	}})
	defer srv.Close()
	want, got := conformance(t, direct.URL), conformance(t, srv.URL)
	passed, failed := 0, 0
	for name, n := range got {
		if n.passed < want[name].passed {
			t.Errorf("%s passes %d times at the mirror, and %d at the registry", name, n.passed, want[name].passed)
		}
		if n.failed > 0 {
			t.Logf("%s fails %d times, as it does at the registry", name, n.failed)
		}
		passed, failed = passed+n.passed, failed+n.failed
	}
	t.Logf("pulls: %d passed, %d failed as they do at the registry", passed, failed)
	if passed < 100 {
		t.Errorf("only %d tests passed: was the suite run?", passed)
	}
	if n := s.daemons[0].metric(t, "p2pnode_proxy_requests_total"); n < float64(passed)/2 {
		t.Errorf("the mirror had %v requests", n)
	}
}

// outcomes counts what came of the tests of one name.
type outcomes struct{ passed, failed int }

// conformance returns what came of those of the suite's tests that pull.
func conformance(t *testing.T, registry string) map[string]outcomes {
	suite := newTool(t, "OCI_REGISTRY="+strings.TrimPrefix(registry, "http://"), "OCI_TLS=disabled", "OCI_RESULTS_DIR=results", "OCI_LOG=error",
		"OCI_DATA_SHA512=false", // which the registry does not know
		"OCI_API_BLOBS_DELETE=false", "OCI_API_MANIFESTS_DELETE=false", "OCI_API_TAGS_DELETE=false",
		"OCI_API_BLOBS_DIGEST_HEADER=true", "OCI_API_MANIFESTS_DIGEST_HEADER=true")
	_, _ = suite.try(t, "conformance") // it ends with 1 where a test failed
	text, err := os.ReadFile(suite.path("results/junit.xml"))
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Suites []struct {
			Cases []struct {
				Class  string `xml:"classname,attr"`
				Name   string `xml:"name,attr"`
				Status string `xml:"status,attr"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	out := map[string]outcomes{}
	for _, s := range report.Suites {
		for _, c := range s.Cases {
			name := c.Class + "/" + c.Name
			if strings.Contains(name, "/push/") || strings.Contains(c.Name, "put") || strings.Contains(c.Name, "patch") || strings.Contains(c.Name, "mount") {
				continue
			}
			n := out[name]
			switch c.Status {
			case "passed":
				n.passed++
			case "failure", "error":
				n.failed++
			}
			out[name] = n
		}
	}
	return out
}
