package main

import (
	"errors"
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/p2pnode/p2pnode/node"
)

// ruleList is the flag value of the rules, which the configuration file has.
type ruleList struct{ rules *[]node.Rule }

// Set refuses: a rule is no plain value.
func (ruleList) Set(string) error { return errors.New("rules stand in the --config file alone") }

func (ruleList) String() string { return "" }

// Type is the value's name in the help text.
func (ruleList) Type() string { return "rules" }

// decode reads the list. Line numbers are kept for the errors, which is why it
// goes through the nodes itself.
func (l ruleList) decode(path string, value *yaml.Node) error {
	if value.Kind == yaml.ScalarNode && value.Tag == "!!null" {
		return nil
	}
	if value.Kind != yaml.SequenceNode {
		return usagef("%s:%d: rules: want a list", path, value.Line)
	}
	for _, item := range value.Content {
		if item.Kind != yaml.MappingNode {
			return usagef("%s:%d: rules: each is a mapping, such as {host: example.com, action: direct}", path, item.Line)
		}
		var r node.Rule
		if err := eachKey(path, "rules", item, func(key string, v *yaml.Node) error { return setRule(&r, key, v) }); err != nil {
			return err
		}
		*l.rules = append(*l.rules, r)
	}
	return nil
}

// setRule sets a key of a rule.
func setRule(r *node.Rule, key string, v *yaml.Node) error {
	var text string
	switch key {
	case "host":
		return decodeList(v, &r.Hosts)
	case "method":
		return decodeList(v, &r.Methods)
	}
	if v.Kind != yaml.ScalarNode || v.Decode(&text) != nil {
		return errors.New("wants one plain value")
	}
	switch key {
	case "url":
		r.URL = text
	case "action":
		r.Action = node.Action(text)
	case "min-size":
		return (*size)(&r.MinSize).Set(text)
	case "max-size":
		return (*size)(&r.MaxSize).Set(text)
	case "fresh":
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("is %q, no duration like 90s, 10m or 24h", text)
		}
		r.Fresh = d
	case "prefetch":
		r.Prefetch = text
	case "private":
		r.Private = text
	default:
		return errors.New("is unknown: take url, host, method, min-size, max-size, action, fresh, prefetch or private")
	}
	return nil
}

// decodeList reads one value or several.
func decodeList(v *yaml.Node, into *[]string) error {
	if v.Kind == yaml.ScalarNode {
		*into = []string{v.Value}
		return nil
	}
	if err := v.Decode(into); err != nil {
		return errors.New("wants one plain value, or a list of them")
	}
	return nil
}
