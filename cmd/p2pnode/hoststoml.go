package main

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// The lines around what mirror install has written into a hosts.toml; uninstall
// finds it by them.
const (
	blockBegin = "# p2pnode mirror: begin; p2pnode mirror uninstall takes it out\n"
	blockEnd   = "# p2pnode mirror: end\n"
)

// errBlock: the lines that mark the mirror's part do not add up.
var errBlock = errors.New("the lines that begin with \"# p2pnode mirror\" were changed: take that part out by hand")

// addHost returns a hosts.toml in which the mirror at url is the first host to
// be asked, and all else is as it was, byte for byte but for a line break that
// the last line may lack. What an earlier addHost has added is replaced. An empty
// text gets server as the registry's own address, unless that is empty.
//
// The text is edited and not written anew, since it has comments, and since the
// order of its tables is the order in which containerd asks the hosts.
func addHost(text []byte, url, server string) ([]byte, error) {
	text, _, err := dropHost(text)
	if err != nil {
		return nil, err
	}
	before, err := parseTOML(text)
	if err != nil {
		return nil, err
	}
	off, err := firstTable(text)
	if err != nil {
		return nil, err
	}
	block := blockBegin
	if len(text) == 0 && server != "" {
		block += fmt.Sprintf("server = %q\n\n", server)
		before["server"] = server
	}
	block += fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", url) + blockEnd
	if off == len(text) && off > 0 && text[off-1] != '\n' {
		text = append(bytes.Clone(text), '\n')
		off++
	}
	out := append(append(bytes.Clone(text[:off]), block...), text[off:]...)
	return out, checkAdded(before, out, url)
}

// checkAdded returns an error unless out says what was said before and names the
// mirror besides.
func checkAdded(before map[string]any, out []byte, url string) error {
	after, err := parseTOML(out)
	if err != nil {
		return fmt.Errorf("%w: does it name %s already? Take that out first", err, url)
	}
	hosts, _ := after["host"].(map[string]any)
	mirror, _ := hosts[url].(map[string]any)
	if !reflect.DeepEqual(mirror["capabilities"], []any{"pull", "resolve"}) || len(mirror) != 1 {
		return fmt.Errorf("cannot add %s to this file without changing what it says: edit it by hand", url)
	}
	delete(hosts, url)
	if _, had := before["host"]; !had && len(hosts) == 0 {
		delete(after, "host")
	}
	if !reflect.DeepEqual(before, after) {
		return errors.New("this file is written in a way that cannot be edited safely: add the host by hand")
	}
	return nil
}

// dropHost takes out what addHost has added, and reports whether there was
// anything.
func dropHost(text []byte) (rest []byte, found bool, err error) {
	from := lineIndex(text, blockBegin)
	to := lineIndex(text, blockEnd)
	if from < 0 && to < 0 {
		return text, false, nil
	}
	if from < 0 || to < from {
		return nil, false, errBlock
	}
	rest = append(bytes.Clone(text[:from]), text[to+len(blockEnd):]...)
	if lineIndex(rest, blockBegin) >= 0 || lineIndex(rest, blockEnd) >= 0 {
		return nil, false, errBlock
	}
	return rest, true, nil
}

// lineIndex returns where a line, given with its end, begins in text; -1 where
// it is not there.
func lineIndex(text []byte, line string) int {
	if bytes.HasPrefix(text, []byte(line)) {
		return 0
	}
	if i := bytes.Index(text, []byte("\n"+line)); i >= 0 {
		return i + 1
	}
	return -1
}

func parseTOML(text []byte) (map[string]any, error) {
	doc := map[string]any{}
	if err := toml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("this is no TOML: %w", err)
	}
	return doc, nil
}

// firstTable returns where the line of the first table header begins; the text's
// length where there is none.
func firstTable(text []byte) (int, error) {
	var p unstable.Parser
	p.Reset(text)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table && e.Kind != unstable.ArrayTable {
			continue
		}
		keys := e.Key()
		keys.Next() // a table has a name
		off := int(keys.Node().Raw.Offset)
		return bytes.LastIndexByte(text[:off], '\n') + 1, nil
	}
	if err := p.Error(); err != nil {
		return 0, fmt.Errorf("this is no TOML: %w", err)
	}
	return len(text), nil
}
