package e2e

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// testApt installs from a repository with one package: its index is validated
// each time, the package comes through the swarm.
func testApt(t *testing.T, c *clients) {
	need(t, "apt-get", "dpkg-deb")
	build := newTool(t)
	build.write(t, "pkg/DEBIAN/control", []byte("Package: p2pnode-sample\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\nDescription: sample\n"))
	build.write(t, "pkg/usr/share/p2pnode-sample/data", p2ptest.Bytes(25, 6<<20))
	build.run(t, "chmod", "-R", "go=rX,u=rwX", "pkg")
	build.run(t, "dpkg-deb", "-Znone", "--root-owner-group", "-b", "pkg", "sample.deb")
	deb, err := os.ReadFile(build.path("sample.deb"))
	if err != nil {
		t.Fatal(err)
	}
	index := fmt.Sprintf("Package: p2pnode-sample\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\nDescription: sample\nFilename: apt/sample.deb\nSize: %d\nSHA256: %x\n\n",
		len(deb), sha256.Sum256(deb))
	c.origin.Add("/apt/sample.deb", deb)
	c.origin.Add("/apt/Packages", []byte(index))
	c.origin.Add("/apt/Release", fmt.Appendf(nil, "Date: %s\nSHA256:\n %x %d Packages\n",
		time.Now().UTC().Format(time.RFC1123), sha256.Sum256([]byte(index)), len(index)))
	c.each(t, "/apt/", func(d *process) {
		apt := newTool(t)
		for _, dir := range []string{"state/lists/partial", "cache/archives/partial"} {
			if err := os.MkdirAll(apt.path(dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		options := []string{
			"-q", "-y", "-o", "Dir::State=" + apt.path("state"), "-o", "Dir::State::status=" + apt.write(t, "status", nil),
			"-o", "Dir::Cache=" + apt.path("cache"), "-o", "Dir::Etc::sourceparts=-", "-o", "Dir::Etc::parts=-",
			"-o", "Dir::Etc::sourcelist=" + apt.write(t, "list", []byte("deb [trusted=yes] "+c.origin.URL+"/ apt/\n")),
			"-o", "APT::Sandbox::User=", "-o", "Acquire::Languages=none", "-o", "Acquire::http::Proxy=" + d.Proxy, "-o", "Debug::NoLocking=1",
		}
		apt.run(t, "apt-get", append(options, "update")...)
		apt.run(t, "apt-get", append(options, "download", "p2pnode-sample")...)
		apt.wantFile(t, "p2pnode-sample_1.0_all.deb", deb)
	})
	c.wantOnce(t, "/apt/sample.deb", deb)
}

// repository makes a Git repository with one file, and returns its directory.
func repository(t *testing.T, data []byte) tool {
	git := newTool(t, "GIT_CONFIG_NOSYSTEM=1")
	git.write(t, "work/file", data)
	git.run(t, "git", "init", "-q", "-b", "main", "work")
	git.run(t, "git", "-C", "work", "add", "file")
	git.run(t, "git", "-C", "work", "-c", "user.name=n", "-c", "user.email=e@example.com", "commit", "-q", "-m", "one")
	git.run(t, "git", "clone", "-q", "--bare", "work", "repo.git")
	git.run(t, "git", "-C", "repo.git", "repack", "-adq")
	git.run(t, "git", "-C", "repo.git", "update-server-info")
	return git
}

// testGit clones by Git's own protocol over HTTP, which no cache may answer: it
// has to pass through.
func testGit(t *testing.T, c *clients) {
	need(t, "git")
	data := p2ptest.Bytes(26, 3<<20)
	repo := repository(t, data)
	git, err := filepath.EvalSymlinks(strings.TrimSpace(string(repo.run(t, "sh", "-c", "command -v git"))))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(&cgi.Handler{
		Path: git, Args: []string{"http-backend"},
		Env: []string{"GIT_PROJECT_ROOT=" + repo.dir, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + repo.dir},
	})
	defer srv.Close()
	for _, d := range c.daemons {
		clone := newTool(t, "GIT_CONFIG_NOSYSTEM=1")
		clone.run(t, "git", "-c", "http.proxy="+d.Proxy, "clone", "-q", srv.URL+"/repo.git", "cloned")
		clone.wantFile(t, "cloned/file", data)
	}
}

// testGitDumb clones from plain files: the pack comes through the swarm.
func testGitDumb(t *testing.T, c *clients) {
	need(t, "git")
	data := p2ptest.Bytes(27, 3<<20)
	repo := repository(t, data)
	root := repo.path("repo.git")
	var pack string
	var packed []byte
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := "/dumb.git" + strings.TrimPrefix(path, root)
		c.origin.Add(name, text)
		if strings.HasSuffix(name, ".pack") {
			pack, packed = name, text
		}
		return nil
	})
	if err != nil || pack == "" {
		t.Fatalf("no pack: %v", err)
	}
	c.each(t, "/dumb.git/", func(d *process) {
		clone := newTool(t, "GIT_CONFIG_NOSYSTEM=1", "GIT_SMART_HTTP=0")
		clone.run(t, "git", "-c", "http.proxy="+d.Proxy, "clone", "-q", c.origin.URL+"/dumb.git", "cloned")
		clone.wantFile(t, "cloned/file", data)
	})
	c.wantOnce(t, pack, packed)
}

// testNPM installs a package from a registry of one.
func testNPM(t *testing.T, c *clients) {
	need(t, "npm", "tar")
	build := newTool(t)
	data := p2ptest.Bytes(28, 2<<20)
	build.write(t, "package/package.json", []byte(`{"name":"p2pnode-sample","version":"1.0.0"}`))
	build.write(t, "package/data", data)
	tarball := build.run(t, "tar", "-cz", "package")
	sum := sha512.Sum512(tarball)
	url := c.origin.Add("/npm/p2pnode-sample/-/p2pnode-sample-1.0.0.tgz", tarball)
	packument, err := json.Marshal(map[string]any{
		"name": "p2pnode-sample", "dist-tags": map[string]string{"latest": "1.0.0"},
		"versions": map[string]any{"1.0.0": map[string]any{
			"name": "p2pnode-sample", "version": "1.0.0",
			"dist": map[string]string{"tarball": url, "integrity": "sha512-" + base64.StdEncoding.EncodeToString(sum[:])},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.origin.Put("/npm/p2pnode-sample", p2ptest.Object{Data: packument, ETag: `"1"`, ContentType: "application/json"})
	c.each(t, "/npm/", func(d *process) {
		npm := newTool(t)
		npm.write(t, "package.json", []byte("{}"))
		npm.run(t, "npm", "install", "--no-audit", "--no-fund", "--no-update-notifier", "--registry", c.origin.URL+"/npm/",
			"--proxy", d.Proxy, "--cache", npm.path("cache"), "p2pnode-sample")
		npm.wantFile(t, "node_modules/p2pnode-sample/data", data)
	})
	c.wantOnce(t, "/npm/p2pnode-sample/-/p2pnode-sample-1.0.0.tgz", tarball)
}

// testQemu converts a disk image that it reads in place, here and there, through
// the gateway.
func testQemu(t *testing.T, c *clients) {
	need(t, "qemu-img")
	qemu := newTool(t)
	if help := string(qemu.run(t, "qemu-img", "--help")); !strings.Contains(help, " http") {
		if os.Getenv("P2PNODE_CLIENTS") != "" {
			t.Fatal("QEMU's HTTP driver was installed and is not there")
		}
		t.Skip("no HTTP driver of QEMU here: .ci/run clients installs it")
	}
	disk := p2ptest.Bytes(29, 8<<20)
	copy(disk[2<<20:], make([]byte, 3<<20)) // a hole, so that the image has an order of its own
	qemu.write(t, "disk", disk)
	qemu.run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "disk", "disk.qcow2")
	image, err := os.ReadFile(qemu.path("disk.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	url := c.origin.Add("/disk.qcow2", image)
	c.each(t, "/disk.qcow2", func(d *process) {
		// One request at a time: with several QEMU 7.2 hangs now and then, on
		// whatever server.
		qemu.run(t, "qemu-img", "convert", "-m", "1", "-f", "qcow2", "-O", "raw", d.Proxy+"/url/"+url, "copy")
		qemu.wantFile(t, "copy", disk)
	})
	if n, held := c.origin.Bytes("/disk.qcow2"), c.origin.Covered("/disk.qcow2"); n != held {
		t.Errorf("the origin sent %d bytes, of which %d were new", n, held)
	}
}
