package main

import (
	"bytes"
	"strings"
	"testing"
)

const (
	mirrorURL = "http://127.0.0.1:65001"
	ourHost   = `[host."http://127.0.0.1:65001"]
  capabilities = ["pull", "resolve"]
`
)

func TestAddHost(t *testing.T) {
	block := blockBegin + ourHost + blockEnd
	for name, c := range map[string]struct{ in, want string }{
		"nothing": {"", blockBegin + "server = \"https://r.example\"\n\n" + ourHost + blockEnd},
		"a server alone": {
			"# mine\nserver = \"https://x\" # why\n",
			"# mine\nserver = \"https://x\" # why\n" + block,
		},
		"no last line break": {"server = 'x'", "server = 'x'\n" + block},
		"another host, which stays behind": {
			"server = 'x'\n# first\n  [host.\"https://a\"]\n  ca = '/a'\n[host.'https://b'.header]\nx = ['y']\n",
			"server = 'x'\n# first\n" + block + "  [host.\"https://a\"]\n  ca = '/a'\n[host.'https://b'.header]\nx = ['y']\n",
		},
		"what looks like a table": {
			"x = '''\n[host.a]\n'''\ny = [\n[1],\n]\n[z]\n",
			"x = '''\n[host.a]\n'''\ny = [\n[1],\n]\n" + block + "[z]\n",
		},
		"a first line that is a table": {"[[a]]\n", block + "[[a]]\n"},
		"the mirror at another port": {
			blockBegin + strings.Replace(ourHost, "65001", "7", 1) + blockEnd + "[z]\n", block + "[z]\n",
		},
		"the mirror as it is": {block + "[z]\n", block + "[z]\n"},
		"CRLF":                {"server = 'x'\r\n[z]\r\n", "server = 'x'\r\n" + block + "[z]\r\n"},
	} {
		got, err := addHost([]byte(c.in), mirrorURL, "https://r.example")
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, got, c.want)
		}
	}
}

func TestAddHostRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"no TOML":             "server = \n",
		"no TOML later":       "[a]\n[a]\n",
		"a host of that name": ourHost,
		"hosts in one line":   `host = {"https://a" = {}}`,
		"dotted keys":         `host."http://127.0.0.1:65001".capabilities = ["pull", "resolve"]`,
		"begin without end":   blockBegin + ourHost,
		"end without begin":   ourHost + blockEnd,
		"end before begin":    blockEnd + blockBegin,
		"two parts":           blockBegin + blockEnd + blockBegin + blockEnd,
	} {
		if got, err := addHost([]byte(in), mirrorURL, ""); err == nil {
			t.Errorf("%s: made\n%s", name, got)
		}
	}
}

// FuzzAddHost: whatever is accepted says the same as before with the mirror as
// its first host, adding again changes nothing, and taking out gives the bytes
// back.
func FuzzAddHost(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("server = 'x'"))
	f.Add([]byte("# c\nserver = \"https://x\"\n\n[host.\"https://a\"]\n  capabilities = [\"pull\"] # c\n  [host.\"https://a\".header]\n    x = [\"y\"]\n"))
	f.Add([]byte("x = \"\"\"\n[host.a]\n\"\"\"\ny = [ # c\n [1],\n]\n[[z]]\n[host]\n"))
	f.Add([]byte(blockBegin + ourHost + blockEnd + "[z]\n"))
	f.Add([]byte("a = 1\r\n\t[ host . 'b' ]\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		plain, _, err := dropHost(in)
		if err != nil {
			return
		}
		out, err := addHost(in, mirrorURL, "https://r.example")
		if err != nil {
			return
		}
		if again, err := addHost(out, mirrorURL, "https://r.example"); err != nil || !bytes.Equal(again, out) {
			t.Errorf("again: %v\n%q\nis not\n%q", err, again, out)
		}
		rest, found, err := dropHost(out)
		if err != nil || !found || !bytes.Equal(rest, plain) && !bytes.Equal(rest, append(bytes.Clone(plain), '\n')) {
			t.Errorf("taken out: %t %v\n%q\nis not\n%q", found, err, rest, plain)
		}
		if off, err := firstTable(out); err != nil || !bytes.HasPrefix(out[off:], []byte(`[host."`+mirrorURL+`"]`)) {
			t.Errorf("the mirror is not the first table of\n%q (%v)", out, err)
		}
	})
}
