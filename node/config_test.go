package node

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

const testPeer = "12D3KooWGC7qKv9rFD6ck5ToahqFmVzNCYBs1hoFPUyzZGvXSbPw"

func TestConfigDefaults(t *testing.T) {
	c := Config{DataDir: "d"}.WithDefaults()
	if err := c.Validate(); err != nil {
		t.Fatalf("the default configuration is refused: %v", err)
	}
	if !slices.Equal(c.Listen, DefaultListen()) || !slices.Equal(c.SupernodeListen, DefaultSupernodeListen()) {
		t.Errorf("listen %v, supernode-listen %v", c.Listen, c.SupernodeListen)
	}
	if c.Proxy != DefaultProxy || c.Admin != DefaultAdmin || c.CacheSize != 10<<30 || c.Replicas != 2 || c.MaxPeers != 1024 || c.Swarm != "default" {
		t.Errorf("defaults are %+v", c)
	}
	if c.Logger == nil || c.Registerer == nil || c.Gatherer == nil {
		t.Error("a nil logger, registerer or gatherer is left")
	}
	s := SupernodeConfig{DataDir: "d"}.WithDefaults()
	if err := s.Validate(); err != nil {
		t.Fatalf("the default supernode configuration is refused: %v", err)
	}
	if !slices.Equal(s.Listen, c.SupernodeListen) || s.Logger == nil || s.Gatherer == nil {
		t.Errorf("supernode defaults are %+v", s)
	}
}

func TestConfigDefaultsKeepWhatIsSet(t *testing.T) {
	reg := prometheus.NewRegistry()
	in := Config{
		DataDir: "d", Listen: []string{"/ip6/::1/tcp/1"}, SupernodeListen: []string{"/ip4/127.0.0.2/tcp/2"},
		Proxy: "127.0.0.1:3", Admin: "localhost:4", CacheSize: 5 << 20, Replicas: 6, MaxPeers: 7, Swarm: "s", Registerer: reg,
	}
	out := in.WithDefaults()
	if out.Proxy != in.Proxy || out.Admin != in.Admin || out.CacheSize != in.CacheSize || out.Replicas != 6 || out.MaxPeers != 7 || out.Swarm != "s" {
		t.Errorf("WithDefaults changed a set field: %+v", out)
	}
	if out.Gatherer != prometheus.Gatherer(reg) {
		t.Error("a registry given as Registerer is not its own Gatherer")
	}
	out.Listen[0] = "changed"
	if in.Listen[0] == "changed" {
		t.Error("WithDefaults shares Listen with its receiver")
	}
}

func TestEmbeddedSupernodeFollowsPortZero(t *testing.T) {
	for _, c := range []struct {
		name   string
		listen []string
		want   []string
	}{
		{"all zero", loopback("0"), loopback("0")},
		{"tcp zero alone", []string{"/ip4/127.0.0.1/tcp/0"}, loopback("0")},
		{"one fixed", []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/7/quic-v1"}, DefaultSupernodeListen()},
		{"port that begins with zero digits", []string{"/ip4/127.0.0.1/tcp/01"}, DefaultSupernodeListen()},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := (Config{Listen: c.listen}).WithDefaults().SupernodeListen; !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestValidateNamesTheField(t *testing.T) {
	for _, c := range []struct {
		name, field, value string
		set                func(*Config)
	}{
		{"no data dir", "data-dir", "", func(c *Config) { c.DataDir = "" }},
		{"registry without URL", "registry", "example.com", func(c *Config) { c.Registries = []string{"example.com"} }},
		{"registry with a path", "registry", "a=https://b/c", func(c *Config) { c.Registries = []string{"a=http://b:1/", "a=https://b/c"} }},
		{"registry with a slash", "registry", "a/b=https://b", func(c *Config) { c.Registries = []string{"a/b=https://b"} }},
		{"registry of no web scheme", "registry", "a=ftp://b", func(c *Config) { c.Registries = []string{"a=ftp://b"} }},
		{"listen no multiaddr", "listen", "127.0.0.1:80", func(c *Config) { c.Listen = []string{"127.0.0.1:80"} }},
		{"listen second bad", "listen", "x", func(c *Config) { c.Listen = []string{DefaultListen()[0], "x"} }},
		{"listen empty", "listen", "", func(c *Config) { c.Listen = []string{""} }},
		{"listen all addresses", "listen", "/ip4/0.0.0.0/tcp/1", func(c *Config) { c.Listen = []string{"/ip4/0.0.0.0/tcp/1"} }},
		{"listen websocket", "listen", "/ip4/127.0.0.1/tcp/1/ws", func(c *Config) { c.Listen = []string{"/ip4/127.0.0.1/tcp/1/ws"} }},
		{"listen plain udp", "listen", "/ip4/127.0.0.1/udp/1", func(c *Config) { c.Listen = []string{"/ip4/127.0.0.1/udp/1"} }},
		{"listen name", "listen", "/dns4/localhost/tcp/1", func(c *Config) { c.Listen = []string{"/dns4/localhost/tcp/1"} }},
		{"listen with ID", "listen", "/ip4/127.0.0.1/tcp/1/p2p/" + testPeer, func(c *Config) { c.Listen = []string{"/ip4/127.0.0.1/tcp/1/p2p/" + testPeer} }},
		{"supernode listen", "supernode-listen", "y", func(c *Config) { c.SupernodeListen = []string{"y"} }},
		{"supernode without ID", "supernode", "/ip4/127.0.0.1/tcp/1", func(c *Config) { c.Supernodes = []string{"/ip4/127.0.0.1/tcp/1"} }},
		{"supernode ID alone", "supernode", "/p2p/" + testPeer, func(c *Config) { c.Supernodes = []string{"/p2p/" + testPeer} }},
		{"bootstrap", "bootstrap", "z", func(c *Config) { c.Bootstrap = []string{"z"} }},
		{"proxy without port", "proxy", "127.0.0.1", func(c *Config) { c.Proxy = "127.0.0.1" }},
		{"proxy big port", "proxy", "127.0.0.1:65536", func(c *Config) { c.Proxy = "127.0.0.1:65536" }},
		{"proxy on all addresses", "proxy", ":65001", func(c *Config) { c.Proxy = ":65001" }},
		{"admin on another address", "admin", "10.0.0.1:1", func(c *Config) { c.Admin = "10.0.0.1:1" }},
		{"site with newline", "site", "a\nb", func(c *Config) { c.Site = "a\nb" }},
		{"site too long", "site", strings.Repeat("a", 65), func(c *Config) { c.Site = strings.Repeat("a", 65) }},
		{"site not utf-8", "site", "\xff", func(c *Config) { c.Site = "\xff" }},
		{"cache below a block", "cache-size", "1048575", func(c *Config) { c.CacheSize = 1<<20 - 1 }},
		{"cache negative", "cache-size", "-1", func(c *Config) { c.CacheSize = -1 }},
		{"origin bad cidr", "origin-allow", "10.0.0.0/99", func(c *Config) { c.OriginAllow = []string{"10.0.0.0/99"} }},
		{"origin with scheme", "origin-allow", "http://a", func(c *Config) { c.OriginAllow = []string{"http://a"} }},
		{"origin with port", "origin-allow", "a:80", func(c *Config) { c.OriginAllow = []string{"a:80"} }},
		{"origin empty", "origin-allow", "", func(c *Config) { c.OriginAllow = []string{""} }},
		{"replicas", "replicas", "257", func(c *Config) { c.Replicas = 257 }},
		{"max peers", "max-peers", "-1", func(c *Config) { c.MaxPeers = -1 }},
		{"swarm with slash", "swarm", "a/b", func(c *Config) { c.Swarm = "a/b" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{DataDir: "d"}
			c.set(&cfg)
			err := cfg.Validate()
			var field *FieldError
			if !errors.As(err, &field) {
				t.Fatalf("got %v, want a *FieldError", err)
			}
			if field.Field != c.field || field.Value != c.value || field.Rule == "" {
				t.Errorf("got field %q value %q, want %q %q", field.Field, field.Value, c.field, c.value)
			}
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("%q is more than one line", err)
			}
		})
	}
}

func TestValidateSupernode(t *testing.T) {
	for field, c := range map[string]SupernodeConfig{
		"data-dir":  {},
		"listen":    {DataDir: "d", Listen: []string{"x"}},
		"admin":     {DataDir: "d", Admin: "x"},
		"replicas":  {DataDir: "d", Replicas: -1},
		"max-peers": {DataDir: "d", MaxPeers: 1 << 30},
		"swarm":     {DataDir: "d", Swarm: "A"},
	} {
		var got *FieldError
		if err := c.Validate(); !errors.As(err, &got) || got.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

func TestValidateAccepts(t *testing.T) {
	c := Config{
		DataDir: "d", Listen: []string{"/ip6/::1/udp/0/quic-v1", "/ip4/127.1.0.9/tcp/0"},
		Supernodes:  []string{"/dns4/super.example.org/tcp/65003/p2p/" + testPeer},
		Bootstrap:   []string{"/ip4/10.0.0.1/udp/65000/quic-v1/p2p/" + testPeer},
		OriginAllow: []string{"127.0.0.0/8", "::1", "10.1.2.3", "mirror-1.internal", "*.example.com", "[::1]", "bücher.example"},
		Proxy:       "[::1]:0", Admin: "localhost:0", Site: "Zürich 2", Swarm: "lab-1",
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}
