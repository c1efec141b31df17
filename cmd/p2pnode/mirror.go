package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/p2pnode/p2pnode/node"
	"github.com/spf13/cobra"
)

const (
	// certsDir is where containerd's own documentation has config_path.
	certsDir  = "/etc/containerd/certs.d"
	hostsFile = "hosts.toml"
	// backupSuffix names what was there before the mirror.
	backupSuffix = ".before-p2pnode"
	// allRegistries is containerd's name for those without a folder.
	allRegistries = "_default"
)

// mirrorOptions are the flags of mirror install and uninstall.
type mirrorOptions struct {
	containerd        bool
	configPath, proxy string
}

func (a *app) mirrorCmd() *cobra.Command {
	command := &cobra.Command{
		Use:   "mirror",
		Short: "Let a container runtime pull through this node, or undo that",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("mirror wants install or uninstall: see p2pnode mirror --help")
		},
	}
	command.AddCommand(a.mirrorInstallCmd(), a.mirrorUninstallCmd())
	return command
}

func (o *mirrorOptions) bind(command *cobra.Command) {
	f := command.Flags()
	f.BoolVar(&o.containerd, "containerd", false, "the runtime is containerd (the only one so far, and wanted)")
	f.StringVar(&o.configPath, "config-path", certsDir, "`directory` that config_path in containerd's configuration names")
	markLocal(command, "containerd", "config-path")
}

func (o *mirrorOptions) check(names []string) error {
	if !o.containerd {
		return usagef("which runtime? Say --containerd, the only one so far")
	}
	if len(names) == 0 {
		return usagef("name the registries, like docker.io or registry.example:5000, or " + allRegistries + " for all without a folder of their own")
	}
	return nil
}

func (a *app) mirrorInstallCmd() *cobra.Command {
	var o mirrorOptions
	command := &cobra.Command{
		Use:   "install --containerd REGISTRY[=URL]...",
		Short: "Make the node's registry mirror the first host that containerd asks",
		Long: `Make the node's registry mirror the first host that containerd asks for images
of the registries. It writes DIR/REGISTRY/hosts.toml, which containerd reads
anew for each pull; where the mirror does not answer, containerd asks the
registry. What else a file says is kept, and a copy of it is kept beside it.
URL is the registry's own address where that is not https://REGISTRY.`,
	}
	o.bind(command)
	command.Flags().StringVar(&o.proxy, "proxy", node.DefaultProxy, "`host:port` of the daemon's proxy")
	command.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := a.fill(cmd); err != nil {
			return err
		}
		if err := o.check(args); err != nil {
			return err
		}
		base, err := proxyURL(o.proxy)
		if err != nil {
			return err
		}
		for _, arg := range args {
			name, server, err := parseRegistry(arg)
			if err == nil {
				err = a.installHost(o.hostsPath(name), base, server)
			}
			if err != nil {
				return err
			}
		}
		fmt.Fprintf(a.stderr, "p2pnode: containerd reads %s where its configuration says config_path = %q\n", hostsFile, o.configPath)
		return nil
	}
	return command
}

func (a *app) mirrorUninstallCmd() *cobra.Command {
	var o mirrorOptions
	command := &cobra.Command{
		Use:   "uninstall --containerd REGISTRY...",
		Short: "Take the node's registry mirror out of containerd's configuration",
		Long: `Take out of DIR/REGISTRY/hosts.toml what mirror install has put there. A file
that was not changed since is as it was before; one that was made is removed.`,
	}
	o.bind(command)
	command.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := a.fill(cmd); err != nil {
			return err
		}
		if err := o.check(args); err != nil {
			return err
		}
		for _, arg := range args {
			name, _, err := parseRegistry(arg)
			if err == nil {
				err = a.uninstallHost(o.hostsPath(name))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return command
}

var registryName = regexp.MustCompile(`^(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?$`)

// parseRegistry reads REGISTRY or REGISTRY=URL.
func parseRegistry(arg string) (name, server string, err error) {
	name, server, given := strings.Cut(arg, "=")
	switch {
	case name != allRegistries && !registryName.MatchString(name):
		return "", "", usagef("%s is no registry: write a host name with or without a port, like docker.io", node.Shown(name))
	case given && !strings.HasPrefix(server, "https://") && !strings.HasPrefix(server, "http://"):
		return "", "", usagef("registry %q: %s is no http:// or https:// URL", name, node.Shown(server))
	case given, name == allRegistries:
	case name == "docker.io":
		server = "https://registry-1.docker.io"
	default:
		server = "https://" + name
	}
	return name, server, nil
}

// hostsPath returns the file of a registry. Of the two names that containerd
// knows for one with a port it takes the other where that is there.
func (o *mirrorOptions) hostsPath(name string) string {
	if host, port, err := net.SplitHostPort(name); err == nil {
		other := filepath.Join(o.configPath, host+"_"+port+"_")
		if info, err := os.Stat(other); err == nil && info.IsDir() {
			return filepath.Join(other, hostsFile)
		}
	}
	return filepath.Join(o.configPath, name, hostsFile)
}

// installHost makes url the first host of a hosts.toml. Again, it changes
// nothing.
func (a *app) installHost(path, url, server string) error {
	text, mode, err := readHosts(path)
	if err != nil {
		return err
	}
	out, err := addHost(text, url, server)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if bytes.Equal(out, text) {
		fmt.Fprintln(a.stdout, path+": is as it should be")
		return nil
	}
	if _, found, err := dropHost(text); err == nil && !found && len(text) > 0 {
		if err := writeHosts(path+backupSuffix, text, mode); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the registry's directory: %w", err)
	}
	if err := writeHosts(path, out, mode); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s: asks %s first\n", path, url)
	return nil
}

// uninstallHost takes the mirror out of a hosts.toml.
func (a *app) uninstallHost(path string) error {
	text, mode, err := readHosts(path)
	if err != nil {
		return err
	}
	rest, found, err := dropHost(text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if !found {
		fmt.Fprintln(a.stdout, path+": has no mirror of p2pnode")
		return nil
	}
	backup := path + backupSuffix
	before, err := os.ReadFile(backup)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read what was there before: %w", err)
	}
	backed := err == nil
	switch {
	case backed && (bytes.Equal(rest, before) || bytes.Equal(rest, append(bytes.Clone(before), '\n'))):
		err = os.Rename(backup, path)
		backed = false
	case len(rest) == 0:
		if err = os.Remove(path); err == nil && !backed {
			_ = os.Remove(filepath.Dir(path)) // where it is empty
		}
	default: // it was changed since
		err = writeHosts(path, rest, mode)
	}
	if err == nil && backed {
		err = os.Remove(backup) // it is older than what is there
	}
	if err != nil {
		return fmt.Errorf("take the mirror out: %w", err)
	}
	fmt.Fprintln(a.stdout, path+": the mirror is out")
	return nil
}

// readHosts returns a file's text and permissions; of one that is not there, none
// and the usual.
func readHosts(path string) ([]byte, fs.FileMode, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0o644, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, fmt.Errorf("read: %w", err)
	}
	return text, info.Mode().Perm(), nil
}

// writeHosts replaces a file at once: containerd may read it at any moment.
func writeHosts(path string, text []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}
