package runner

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/pelletier/go-toml/v2"
)

// Manifest is what the runner needs of a plan's manifest.toml.
type Manifest struct {
	Name      string     `toml:"name"`
	TestCases []TestCase `toml:"testcases"`
}

// TestCase is a case and its parameters.
type TestCase struct {
	Name      string `toml:"name"`
	Instances struct {
		Min     int `toml:"min"`
		Max     int `toml:"max"`
		Default int `toml:"default"`
	} `toml:"instances"`
	Params map[string]Param `toml:"params"`
}

// Param documents a parameter.
type Param struct {
	Type    string `toml:"type"`
	Desc    string `toml:"desc"`
	Unit    string `toml:"unit"`
	Default any    `toml:"default"`
}

// LoadManifest reads a manifest.
func LoadManifest(path string) (Manifest, error) {
	var m Manifest
	text, err := os.ReadFile(path)
	if err != nil {
		return m, fmt.Errorf("read manifest: %w", err)
	}
	if err := toml.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("read manifest %s: %w", path, err)
	}
	return m, nil
}

// Case returns a case by name.
func (m Manifest) Case(name string) (TestCase, error) {
	var names []string
	for _, c := range m.TestCases {
		if c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	return TestCase{}, fmt.Errorf("plan %s has no case %q: it has %q", m.Name, name, names)
}

// Values returns the defaults of a case with what is set in their place, as
// Testground's daemon does it.
func (c TestCase) Values(set map[string]string) (map[string]string, error) {
	out := make(map[string]string, len(c.Params))
	for name, p := range c.Params {
		if text, ok := p.Default.(string); ok {
			out[name] = text
			continue
		}
		text, err := json.Marshal(p.Default)
		if err != nil {
			return nil, fmt.Errorf("default of parameter %s: %w", name, err)
		}
		out[name] = string(text)
	}
	for name, v := range set {
		if _, ok := out[name]; !ok {
			return nil, fmt.Errorf("case %s has no parameter %q", c.Name, name)
		}
		out[name] = v
	}
	return out, nil
}
