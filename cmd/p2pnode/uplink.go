package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/p2pnode/p2pnode/node"
)

// uplinkValue is the flag value of the uplink, which the configuration file has.
type uplinkValue struct{ uplink *node.Uplink }

// Set refuses: an uplink is no plain value.
func (uplinkValue) Set(string) error {
	return errors.New("the uplink stands in the --config file alone")
}

func (uplinkValue) String() string { return "" }

// Type is the value's name in the help text.
func (uplinkValue) Type() string { return "uplink" }

// decode reads the mapping. A window has what it does not say from the uplink.
func (u uplinkValue) decode(path string, value *yaml.Node) error {
	if value.Kind == yaml.ScalarNode && value.Tag == "!!null" {
		return nil
	}
	var schedule *yaml.Node
	if err := eachKey(path, "uplink", value, func(key string, v *yaml.Node) error {
		if key == "schedule" {
			schedule = v
			return nil
		}
		known, err := setBounds(key, v, &u.uplink.Rate, &u.uplink.NoBackground)
		if !known {
			return errors.New("is unknown: take rate, background or schedule")
		}
		return err
	}); err != nil {
		return err
	}
	u.uplink.Rate = max(u.uplink.Rate, 0) // none
	if schedule == nil {
		return nil
	}
	if schedule.Kind != yaml.SequenceNode {
		return usagef("%s:%d: uplink: schedule wants a list", path, schedule.Line)
	}
	for _, item := range schedule.Content {
		w := node.Window{Rate: u.uplink.Rate, NoBackground: u.uplink.NoBackground, From: -1, To: -1}
		if err := eachKey(path, "uplink: schedule", item, func(key string, v *yaml.Node) error { return setWindow(&w, key, v) }); err != nil {
			return err
		}
		if w.From < 0 || w.To < 0 {
			return usagef("%s:%d: uplink: schedule: a window wants from and to, as in {from: \"22:00\", to: \"06:00\", rate: 10MiB}", path, item.Line)
		}
		u.uplink.Schedule = append(u.uplink.Schedule, w)
	}
	return nil
}

// eachKey calls set for each key of a mapping, of which none may stand twice.
func eachKey(path, where string, value *yaml.Node, set func(key string, v *yaml.Node) error) error {
	if value.Kind != yaml.MappingNode {
		return usagef("%s:%d: %s: wants keys and values, such as {rate: 2MiB}", path, value.Line, where)
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(value.Content); i += 2 {
		key, v := value.Content[i], value.Content[i+1]
		err := set(key.Value, v)
		if seen[key.Value] {
			err = errors.New("is there twice: keep one")
		}
		if err != nil {
			return usagef("%s:%d: %s: key %q %w", path, key.Line, where, key.Value, err)
		}
		seen[key.Value] = true
	}
	return nil
}

// setBounds sets a key that uplinks and windows have; it reports whether it is one.
func setBounds(key string, v *yaml.Node, rate *int64, noBackground *bool) (known bool, err error) {
	var text string
	plain := v.Kind == yaml.ScalarNode && v.Decode(&text) == nil
	switch key {
	case "rate":
		if plain && text == "none" {
			*rate = -1
			return true, nil
		}
		if !plain || (*size)(rate).Set(text) != nil {
			return true, errors.New("wants bytes a second, like 2MiB, or none")
		}
	case "background":
		if !plain || text != "on" && text != "off" {
			return true, errors.New("wants on or off")
		}
		*noBackground = text == "off"
	default:
		return false, nil
	}
	return true, nil
}

// setWindow sets a key of a window.
func setWindow(w *node.Window, key string, v *yaml.Node) (err error) {
	switch key {
	case "days":
		var names []string
		if err := decodeList(v, &names); err != nil {
			return err
		}
		for _, name := range names {
			day, ok := weekday(name)
			if !ok {
				return fmt.Errorf("has %q, which is none of mon, tue, wed, thu, fri, sat, sun", name)
			}
			w.Days = append(w.Days, day)
		}
	case "from":
		w.From, err = clock(v)
	case "to":
		w.To, err = clock(v)
	default:
		known, err := setBounds(key, v, &w.Rate, &w.NoBackground)
		if !known {
			return errors.New("is unknown: take days, from, to, rate or background")
		}
		return err
	}
	return err
}

// weekday returns the day of that name, of which three letters are enough.
func weekday(name string) (time.Weekday, bool) {
	for day := time.Sunday; day <= time.Saturday; day++ {
		if full := day.String(); strings.EqualFold(name, full) || strings.EqualFold(name, full[:3]) {
			return day, true
		}
	}
	return 0, false
}

// clock reads a time of the day.
func clock(v *yaml.Node) (time.Duration, error) {
	at, err := time.Parse("15:04", v.Value)
	if v.Kind != yaml.ScalarNode || err != nil {
		return 0, fmt.Errorf("is %q, no time of the day like \"22:30\"", v.Value)
	}
	return time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute, nil
}
