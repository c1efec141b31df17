package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/p2pnode/p2pnode/node"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// envPrefix begins the variables: P2PNODE_DATA_DIR for --data-dir.
const envPrefix = "P2PNODE_"

// settings are the flags of a command while they are filled from their
// sources. The flags are the schema: what a command has no flag for is no
// variable and no key either.
type settings struct {
	flags *pflag.FlagSet
	env   func(string) (string, bool)
	// from says where a setting that is no default came from, by flag name.
	from map[string]string
}

// fill sets each flag that the command line has not set: from the environment,
// else from the file of --config where the command has that flag.
func (a *app) fill(cmd *cobra.Command) (*settings, error) {
	s := &settings{flags: cmd.Flags(), env: a.env, from: make(map[string]string)}
	s.flags.Visit(func(f *pflag.Flag) { s.from[f.Name] = "--" + f.Name })
	if err := s.fillEnv(); err != nil {
		return nil, err
	}
	if path := s.flags.Lookup("config"); path != nil && path.Value.String() != "" {
		if err := s.fillFile(path.Value.String()); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// needDataDir refuses an empty data directory and says why it is empty.
func (s *settings) needDataDir(dir string) error {
	switch {
	case dir != "":
		return nil
	case s.from["data-dir"] != "":
		return usagef("%s: data-dir is empty: name a directory", s.from["data-dir"])
	case runtime.GOOS == "windows":
		return usagef("LOCALAPPDATA is not set: name a directory with --data-dir")
	}
	return usagef("neither HOME nor XDG_DATA_HOME is set: name a directory with --data-dir")
}

// local reports whether a flag belongs to the command line alone.
func local(f *pflag.Flag) bool { return f.Name == "help" || f.Annotations["local"] != nil }

// fillEnv sets flags from P2PNODE_ variables; a list is separated by commas.
// An empty variable counts as not set.
func (s *settings) fillEnv() error {
	var failed error
	s.flags.VisitAll(func(f *pflag.Flag) {
		key := envPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, _ := s.env(key)
		if failed != nil || value == "" || s.from[f.Name] != "" || local(f) {
			return
		}
		values := []string{value}
		if _, list := f.Value.(pflag.SliceValue); list {
			values = strings.Split(value, ",")
		}
		failed = s.set(f, key, values)
	})
	return failed
}

// fillFile sets flags from a YAML file: one flat mapping whose keys are flag
// names. An empty file sets nothing.
func (s *settings) fillFile(path string) error {
	keys, err := readMapping(path)
	if err != nil {
		return err
	}
	seen := make(map[string]bool, len(keys)/2)
	for i := 0; i+1 < len(keys); i += 2 {
		key, value := keys[i], keys[i+1]
		where := fmt.Sprintf("%s:%d", path, key.Line)
		f := s.flags.Lookup(key.Value)
		if f == nil || local(f) || f.Name == "config" {
			return usagef("%s: unknown key %q: take the flags' names without the hyphens in front", where, key.Value)
		}
		if seen[f.Name] {
			return usagef("%s: key %q is there twice: keep one", where, f.Name)
		}
		seen[f.Name] = true
		if s.from[f.Name] == "" {
			if v, ok := f.Value.(structure); ok {
				if err := v.decode(path, value); err != nil {
					return err
				}
				s.from[f.Name] = where
				continue
			}
		}
		values, err := scalars(f, value)
		if err != nil {
			return usagef("%s: key %q %w", where, f.Name, err)
		}
		if values == nil || s.from[f.Name] != "" {
			continue
		}
		if err := s.set(f, where, values); err != nil {
			return err
		}
	}
	return nil
}

// structure is a flag value that is no list of plain ones: it exists in the
// configuration file alone.
type structure interface {
	// decode reads the value of the key; the error names the file and the line.
	decode(path string, value *yaml.Node) error
}

// readMapping returns the keys and values, in turn, of the one mapping that a
// YAML file may hold; none for an empty file.
func readMapping(path string) ([]*yaml.Node, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, usagef("config: %w: name a file that exists", err)
	}
	defer file.Close()
	dec := yaml.NewDecoder(file)
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, usagef("config %s: %w", path, err)
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, usagef("config %s: more than one document: keep the first alone", path)
	}
	top := doc.Content[0]
	if top.Kind == yaml.ScalarNode && top.Tag == "!!null" {
		return nil, nil
	}
	if top.Kind != yaml.MappingNode {
		return nil, usagef("config %s: line %d is no mapping: write lines like `cache-size: 10GiB`", path, top.Line)
	}
	return top.Content, nil
}

// scalars returns what a key's value says: one string, several for a list, nil
// for null, which leaves the default.
func scalars(f *pflag.Flag, value *yaml.Node) ([]string, error) {
	if value.Kind == yaml.AliasNode {
		value = value.Alias
	}
	_, list := f.Value.(pflag.SliceValue)
	switch {
	case value.Kind == yaml.ScalarNode && value.Tag == "!!null":
		return nil, nil
	case value.Kind == yaml.ScalarNode:
		return []string{value.Value}, nil
	case value.Kind != yaml.SequenceNode || !list:
		return nil, errors.New("wants one value, not a structure")
	}
	values := make([]string, 0, len(value.Content))
	for _, v := range value.Content {
		if v.Kind != yaml.ScalarNode {
			return nil, errors.New("wants a list of plain values")
		}
		values = append(values, v.Value)
	}
	return values, nil
}

// set gives a flag its value and notes where it came from.
func (s *settings) set(f *pflag.Flag, where string, values []string) error {
	var err error
	if list, ok := f.Value.(pflag.SliceValue); ok {
		err = list.Replace(values)
	} else {
		err = f.Value.Set(values[0])
	}
	if err != nil {
		return usagef("%s: %s: %w", where, f.Name, err)
	}
	s.from[f.Name] = where
	return nil
}

// explain adds to an error about a field where its value came from.
func (s *settings) explain(err error) error {
	var field *node.FieldError
	if errors.As(err, &field) && s.from[field.Field] != "" && s.from[field.Field] != "--"+field.Field {
		return fmt.Errorf("%w (set in %s)", err, s.from[field.Field])
	}
	return err
}

// dataDir returns the default directory of a daemon or a supernode: below
// $XDG_DATA_HOME where it is set, else /var/lib for root, else the user's own;
// "" where the environment does not say which that is.
func (a *app) dataDir(name string) string {
	get := func(key string) string { v, _ := a.env(key); return v }
	switch base := get("XDG_DATA_HOME"); {
	case filepath.IsAbs(base):
		return filepath.Join(base, name)
	case runtime.GOOS == "windows":
		return below(get("LOCALAPPDATA"), name)
	case a.superuser:
		return filepath.Join("/var/lib", name)
	}
	return below(get("HOME"), ".local", "share", name)
}

// below returns a path below base, or "" where there is no base.
func below(base string, names ...string) string {
	if base == "" {
		return ""
	}
	return filepath.Join(base, filepath.Join(names...))
}

// logger writes to stderr as the flags say.
func (a *app) logger(l level, f format) *slog.Logger {
	opts := &slog.HandlerOptions{Level: l.Level}
	if f == "json" {
		return slog.New(slog.NewJSONHandler(a.stderr, opts))
	}
	return slog.New(slog.NewTextHandler(a.stderr, opts))
}
