package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/p2pnode/p2pnode/node"
	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/node/proxy"
)

// harness is an app whose parts a test replaces, with what it wrote.
type harness struct {
	app
	out, errs bytes.Buffer
	vars      map[string]string
}

// errStop ends a command once its Config has been seen.
var errStop = errors.New("stop here")

func newHarness() *harness {
	h := &harness{vars: map[string]string{"HOME": "/home/x"}}
	h.app = app{
		stdout: &h.out, stderr: &h.errs, stopLimit: stopLimit,
		env:          func(key string) (string, bool) { v, ok := h.vars[key]; return v, ok },
		newNode:      func(node.Config) (runner, error) { return nil, errStop },
		newSupernode: func(node.SupernodeConfig) (runner, error) { return nil, errStop },
	}
	return h
}

// daemonConfig returns the Config that a command line of daemon comes to.
func (h *harness) daemonConfig(t *testing.T, args ...string) node.Config {
	t.Helper()
	var got node.Config
	h.newNode = func(c node.Config) (runner, error) { got = c; return nil, errStop }
	if code := h.run(t.Context(), append([]string{"daemon"}, args...)); code != exitFailed {
		t.Fatalf("exit code %d: %s", code, h.errs.String())
	}
	return got
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "p2pnode.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	const file = "site: file\nswarm: file\nproxy: 127.0.0.1:1\n"
	h := newHarness()
	h.vars["P2PNODE_SITE"], h.vars["P2PNODE_SWARM"] = "env", "env"
	c := h.daemonConfig(t, "--config", writeConfig(t, file), "--site", "flag")
	if c.Site != "flag" || c.Swarm != "env" || c.Proxy != "127.0.0.1:1" || c.Admin != node.DefaultAdmin {
		t.Errorf("site %q swarm %q proxy %q admin %q", c.Site, c.Swarm, c.Proxy, c.Admin)
	}
}

func TestEverySourceSetsEveryField(t *testing.T) {
	const peerAddr = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGC7qKv9rFD6ck5ToahqFmVzNCYBs1hoFPUyzZGvXSbPw"
	want := map[string][]string{
		"data-dir": {"/d"}, "listen": {"/a", "/b"}, "supernode": {peerAddr}, "bootstrap": {peerAddr},
		"proxy": {"127.0.0.1:2"}, "admin": {"127.0.0.1:3"}, "site": {"s"}, "seed": {"false"}, "cache-size": {"5MiB"},
		"fill": {"whole"}, "fill-rate": {"2MiB"}, "fill-tasks": {"5"},
		"origin-allow": {"a", "10.0.0.0/8"}, "origin-fallback": {"false"}, "replicas": {"3"}, "max-peers": {"9"}, "swarm": {"w"},
	}
	flags, vars, file := []string(nil), map[string]string{}, ""
	for name, values := range want {
		vars[envPrefix+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = strings.Join(values, ",")
		for _, v := range values {
			flags = append(flags, "--"+name+"="+v)
		}
		if len(values) > 1 {
			file += name + ": [" + strings.Join(values, ", ") + "]\n"
		} else {
			file += name + ": " + values[0] + "\n"
		}
	}
	check := func(t *testing.T, c node.Config) {
		c.Logger, c.Version = nil, ""
		got := []any{c.DataDir, c.Proxy, c.Admin, c.Site, c.Seed, c.CacheSize, c.OriginFallback, c.Replicas, c.MaxPeers, c.Swarm, c.Fill, c.FillRate, c.FillTasks}
		if !slices.Equal(got, []any{"/d", "127.0.0.1:2", "127.0.0.1:3", "s", false, int64(5 << 20), false, 3, 9, "w", "whole", int64(2 << 20), 5}) {
			t.Errorf("got %v", got)
		}
		for i, list := range [][]string{c.Listen, c.Supernodes, c.Bootstrap, c.OriginAllow} {
			if want := [][]string{{"/a", "/b"}, {peerAddr}, {peerAddr}, {"a", "10.0.0.0/8"}}[i]; !slices.Equal(list, want) {
				t.Errorf("got %v, want %v", list, want)
			}
		}
	}
	t.Run("flags", func(t *testing.T) { check(t, newHarness().daemonConfig(t, flags...)) })
	t.Run("environment", func(t *testing.T) {
		h := newHarness()
		h.vars = vars
		check(t, h.daemonConfig(t))
	})
	t.Run("file", func(t *testing.T) {
		h := newHarness()
		h.vars["P2PNODE_CONFIG"] = writeConfig(t, file)
		check(t, h.daemonConfig(t))
	})
}

func TestSupernodeListen(t *testing.T) {
	h := newHarness()
	h.vars["P2PNODE_SUPERNODE_LISTEN"] = "/c,/d"
	if c := h.daemonConfig(t); !slices.Equal(c.SupernodeListen, []string{"/c", "/d"}) {
		t.Errorf("got %v", c.SupernodeListen)
	}
	h.errs.Reset()
	code := h.run(t.Context(), []string{"daemon", "--supernode", "/a"})
	checkError(t, h, code, exitUsage, "--supernode-listen", "leave out one")
}

func TestExitCodesOfFields(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"--listen", "x"}, exitFailed},
		{[]string{"--supernode", "x"}, exitFailed},
		{[]string{"--supernode-listen", "x"}, exitFailed},
		{[]string{"--bootstrap", "x"}, exitFailed},
		{[]string{"--origin-allow", "http://a"}, exitUsage},
		{[]string{"--swarm", "A"}, exitUsage},
		{[]string{"--cache-size", "1KiB"}, exitUsage},
		{[]string{"--proxy", ":0"}, exitUsage},
		{[]string{"--data-dir", ""}, exitUsage},
	} {
		h := newHarness()
		h.newNode = func(c node.Config) (runner, error) { return nil, c.Validate() }
		checkError(t, h, h.run(t.Context(), append([]string{"daemon"}, c.args...)), c.want, strings.TrimPrefix(c.args[0], "--"))
	}
}

func TestNoHome(t *testing.T) {
	for _, command := range []string{"daemon", "supernode", "id", "status", "seeds"} {
		h := newHarness()
		delete(h.vars, "HOME")
		checkError(t, h, h.run(t.Context(), []string{command}), exitUsage, "HOME", "--data-dir")
	}
}

func TestFilesThatSetNothing(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "comment": "# nothing\n", "document mark": "---\n", "null": "null\n", "null value": "site:\n",
	} {
		t.Run(name, func(t *testing.T) {
			if c := newHarness().daemonConfig(t, "--config", writeConfig(t, text)); c.Site != "" || !c.Seed {
				t.Errorf("got %+v", c)
			}
		})
	}
}

func TestBadSettings(t *testing.T) {
	for _, c := range []struct {
		name, file, variable string
		want                 []string
	}{
		{name: "unknown key", file: "site: a\ncache-sise: 1\n", want: []string{"cache-sise", ":2"}},
		{name: "key with underscore", file: "cache_size: 1\n", want: []string{"cache_size"}},
		{name: "key of the command line alone", file: "help: true\n", want: []string{"help"}},
		{name: "config in config", file: "config: x\n", want: []string{`"config"`}},
		{name: "nested", file: "origin:\n  allow: a\n", want: []string{`"origin"`}},
		{name: "twice", file: "site: a\nsite: b\n", want: []string{`"site"`, "twice"}},
		{name: "two documents", file: "site: a\n---\nsite: b\n", want: []string{"more than one document"}},
		{name: "second document empty", file: "site: a\n---\n", want: []string{"more than one document"}},
		{name: "a list", file: "- site\n", want: []string{"no mapping"}},
		{name: "not YAML", file: "site: [\n", want: []string{"yaml"}},
		{name: "list for one value", file: "site: [a]\n", want: []string{`"site"`}},
		{name: "map in list", file: "listen: [{a: b}]\n", want: []string{`"listen"`}},
		{name: "bad size", file: "cache-size: lots\n", want: []string{"cache-size", "lots"}},
		{name: "bad bool", file: "seed: perhaps\n", want: []string{"seed", "perhaps", "write true or false"}},
		{name: "bad variable", variable: "P2PNODE_CACHE_SIZE", want: []string{"P2PNODE_CACHE_SIZE", "lots"}},
		{name: "bad number in variable", variable: "P2PNODE_MAX_PEERS", want: []string{"P2PNODE_MAX_PEERS", "lots"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness()
			path := writeConfig(t, c.file)
			if c.variable != "" {
				h.vars[c.variable] = "lots"
			} else {
				c.want = append(c.want, path)
			}
			h.newNode = func(node.Config) (runner, error) { t.Error("a node was made"); return nil, errStop }
			code := h.run(t.Context(), []string{"daemon", "--config", path})
			checkError(t, h, code, exitUsage, c.want...)
		})
	}
}

// checkError wants an exit code and one line on stderr that has all of parts.
func checkError(t *testing.T, h *harness, code, want int, parts ...string) {
	t.Helper()
	text := h.errs.String()
	if code != want {
		t.Errorf("exit code %d, want %d: %s", code, want, text)
	}
	if !strings.HasPrefix(text, "p2pnode: ") || strings.Count(text, "\n") != 1 {
		t.Errorf("want one line that begins with the program's name, got %q", text)
	}
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not say %q", text, part)
		}
	}
}

func TestConfigFileMissing(t *testing.T) {
	h := newHarness()
	checkError(t, h, h.run(t.Context(), []string{"daemon", "--config", "/no/such/file"}), exitUsage, "/no/such/file")
}

func TestBadFieldNamesItsSource(t *testing.T) {
	h := newHarness()
	h.vars["P2PNODE_LISTEN"] = "nonsense"
	h.newNode = func(c node.Config) (runner, error) { return nil, c.Validate() }
	checkError(t, h, h.run(t.Context(), []string{"daemon"}), exitFailed, "listen", "nonsense", "P2PNODE_LISTEN")

	h = newHarness()
	h.newSupernode = func(c node.SupernodeConfig) (runner, error) { return nil, c.Validate() }
	path := writeConfig(t, "# x\nadmin: here\n")
	checkError(t, h, h.run(t.Context(), []string{"supernode", "--config", path}), exitUsage, "admin", "here", path+":2")
}

func TestSupernodeConfig(t *testing.T) {
	h := newHarness()
	var got node.SupernodeConfig
	h.newSupernode = func(c node.SupernodeConfig) (runner, error) { got = c; return nil, errStop }
	h.vars["P2PNODE_REPLICAS"] = "5"
	h.run(t.Context(), []string{"supernode", "--listen", "/x", "--swarm", "w", "--max-peers", "6", "--shards", "16", "--data-dir", "/d"})
	if got.DataDir != "/d" || !slices.Equal(got.Listen, []string{"/x"}) || got.Swarm != "w" || got.MaxPeers != 6 || got.Replicas != 5 || got.Shards != 16 ||
		got.Admin != node.DefaultSupernodeAdmin || got.Logger == nil {
		t.Errorf("got %+v", got)
	}
	h = newHarness()
	checkError(t, h, h.run(t.Context(), []string{"supernode", "--config", writeConfig(t, "proxy: 127.0.0.1:1\n")}), exitUsage, `"proxy"`)
}

func TestDataDir(t *testing.T) {
	h := newHarness()
	h.vars["XDG_DATA_HOME"] = "/xdg"
	if got := h.dataDir("p2pnode"); got != "/xdg/p2pnode" {
		t.Errorf("with XDG_DATA_HOME: %q", got)
	}
	h.vars["XDG_DATA_HOME"] = "relative"
	if got := h.dataDir("p2pnode"); got != "/home/x/.local/share/p2pnode" {
		t.Errorf("with a relative XDG_DATA_HOME: %q", got)
	}
	h.superuser = true
	if got := h.dataDir("p2pnode"); got != "/var/lib/p2pnode" {
		t.Errorf("as root: %q", got)
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"daemon", "--nosuch"}, "--nosuch"},
		{[]string{"--nosuch"}, "--nosuch"},
		{[]string{"nosuch"}, "nosuch"},
		{[]string{"daemn"}, "daemn"},
		{[]string{"daemon", "surplus"}, "surplus"},
		{[]string{"supernode", "--proxy", "x"}, "--proxy"},
		{[]string{"daemon", "--cache-size", "lots"}, "lots"},
		{[]string{"daemon", "--replicas", "0"}, "--replicas"},
		{[]string{"daemon", "--log-format", "xml"}, "xml"},
		{[]string{"daemon", "--listen"}, "--listen"},
		{[]string{"completion", "csh"}, "csh"},
		{[]string{"help", "nope"}, "nope"},
		{[]string{"help", "get", "nope"}, "nope"},
		{[]string{"daemon", "--seed=perhaps"}, "write true or false"},
		{[]string{"get"}, "one URL"},
		{[]string{"get", "a", "b"}, "one URL"},
		{[]string{"get", "ftp://a/b"}, "ftp://a/b"},
		{[]string{"get", "http://user:word@a/b"}, "user"},
		{[]string{"get", "http://a/"}, "--output"},
		{[]string{"get", "http://a/..", "--range", "1-2"}, "--output"},
		{[]string{"get", "http://a/%zz"}, "%zz"},
		{[]string{"get", "http://a/-"}, "--output"},
		{[]string{"get", "http://a"}, "--output"},
		{[]string{"get", "http://a/b", "--range", "9-1"}, "9-1"},
		{[]string{"get", "http://a/b", "--digest", "sha256:12"}, "sha256:12"},
		{[]string{"get", "http://a/b", "--range", "1-2", "--digest", "sha256:" + strings.Repeat("0", 64)}, "--range"},
		{[]string{"get", "http://a/b", "--proxy", "ftp://x"}, "ftp://x"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			h := newHarness()
			code := h.run(t.Context(), c.args)
			checkError(t, h, code, exitUsage, c.want)
			if strings.Contains(h.errs.String(), "word") {
				t.Error("a password was printed")
			}
		})
	}
}

func TestErrorIsOneLineWithAdvice(t *testing.T) {
	h := newHarness()
	h.newNode = func(node.Config) (runner, error) {
		return nil, errors.New("failed to listen:\n  * listen tcp: bind: address already in use\n")
	}
	checkError(t, h, h.run(context.Background(), []string{"daemon"}), exitFailed, "failed to listen:; * listen tcp: bind: address already in use")

	h = newHarness()
	h.newNode = func(node.Config) (runner, error) {
		_, err := os.ReadDir(writeConfig(t, "") + "/x")
		return nil, err
	}
	checkError(t, h, h.run(context.Background(), []string{"daemon"}), exitFailed, "a file is in the way")
}

func FuzzConfigFile(f *testing.F) {
	const addr = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGC7qKv9rFD6ck5ToahqFmVzNCYBs1hoFPUyzZGvXSbPw"
	for _, s := range []string{
		"rules:\n- {url: '^https://[a-z]+/', host: [a.example, '*.b.example', 10.0.0.0/8, '[::1]'], method: GET, min-size: 1MiB, max-size: 2MiB, action: p2p, fresh: 90s, prefetch: whole, private: grace(1h)}\n- {method: [GET, PUT], action: direct}\n",
		"rules:\n- {host: 'a:1', action: block}\n", "rules:\n- {url: '(', action: p2p}\n", "rules:\n- {private: grace(-1h), action: p2p}\n",
		"uplink: {rate: 2MiB, background: off, schedule: [{days: [mon, Sunday], from: \"22:00\", to: \"06:00\", rate: none}, {from: \"06:00\", to: \"06:00\", background: on}]}\n", "uplink: {schedule: [{from: 25:00}]}\n",
		"registry: [a.example=https://r.example:5000, b=http://x/]\nintercept: [A.example, '*.b.example', '10.0.0.1']\n", "registry: =https://u:p@r/\n",
		"supernode: " + addr + "\nbootstrap: [" + addr + "]\nsite-peer: /dns4/x/udp/1/quic-v1/p2p/x\n", "listen: /ip4/127.0.0.1/tcp/0\nsupernode-listen: /ip4/0.0.0.0/tcp/1\n",
		"origin-allow: [10.0.0.0/8, '*.a', a]\norigin-only: x/y\nfilter-query: [utm_source, sig]\nproxy: 0.0.0.0:1\nproxy-open: true\nadmin: unix:/x\n",
		"site: a\n", "listen: [a, b]\n", "a: &a [*a]\n", "site: &s x\nswarm: *s\n", "? [a]\n: b\n", "<<: {site: a}\n", "---\n---\n", "- a\n", "null\n", "seed: no\n", "&a a: *a\n"} {
		f.Add(s)
	}
	path := filepath.Join(f.TempDir(), "c.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, ok := newHarness().accepts(t, "--config", path); !ok {
			return
		}
		h := newHarness()
		if code := h.run(t.Context(), []string{"config", "check", "--config", path}); code != exitDone {
			t.Fatalf("accepted by the daemon: %d %s", code, h.errs.String())
		}
	})
}

// accepts runs a daemon up to its ports, and returns the configuration that it has
// found good. What it refuses it refuses in one line.
func (h *harness) accepts(t *testing.T, args ...string) (c node.Config, ok bool) {
	t.Helper()
	h.newNode = func(got node.Config) (runner, error) {
		if err := got.Validate(); err != nil {
			return nil, err
		}
		c, ok = got, true
		return nil, errStop
	}
	code := h.run(t.Context(), append([]string{"daemon"}, args...))
	if lines := strings.Count(h.errs.String(), "\n"); (code != exitUsage && code != exitFailed) || lines != 1 {
		t.Fatalf("exit code %d, %q", code, h.errs.String())
	}
	if ok {
		checkGood(t, c)
	}
	return c, ok
}

// checkGood wants all that a good configuration says to be read by those who use it.
func checkGood(t *testing.T, c node.Config) {
	t.Helper()
	if err := c.WithDefaults().Validate(); err != nil {
		t.Fatalf("no good with its defaults: %v", err)
	}
	if _, err := proxy.NewHostPatterns(c.Intercept); err != nil {
		t.Fatal(err)
	}
	if _, err := host.ParseAddrInfos(slices.Concat(c.Supernodes, c.Bootstrap, c.SitePeers)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Judge("GET", "https://a.example/x", 5); err != nil {
		t.Fatal(err)
	}
	for hour := range 24 {
		if b := c.Uplink.At(time.Date(2026, 11, 23, hour, 0, 0, 0, time.UTC)); b.Rate < 0 {
			t.Fatalf("a rate of %d at %d:00", b.Rate, hour)
		}
	}
}

// FuzzEnvironment: a variable is one setting, and a list has what stands between
// its commas.
func FuzzEnvironment(f *testing.F) {
	var (
		d     daemonSettings
		flags pflag.FlagSet
		names []string
	)
	d.bind(&newHarness().app, &flags)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != "config" { // a file
			names = append(names, f.Name)
		}
	})
	for i := range names {
		for _, s := range []string{"a,*.b.example", "/ip4/127.0.0.1/tcp/1", "a=https://b", "5", "true", "10MiB", ",", "\x00"} {
			f.Add(uint8(i), s)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, value string) {
		name := names[int(which)%len(names)]
		h := newHarness()
		h.vars[envPrefix+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = value
		c, ok := h.accepts(t)
		lists := map[string][]string{
			"listen": c.Listen, "filter-query": c.FilterQuery, "supernode": c.Supernodes, "supernode-listen": c.SupernodeListen, "bootstrap": c.Bootstrap,
			"site-peer": c.SitePeers, "origin-allow": c.OriginAllow, "origin-only": c.OriginOnly, "registry": c.Registries, "intercept": c.Intercept,
		}
		if list, is := lists[name]; ok && is && strings.Join(list, ",") != value {
			t.Fatalf("%s=%q is %q", name, value, list)
		}
	})
}
