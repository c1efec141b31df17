package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"p2pnode": main})
}

// TestScripts runs the command as users do. Each script has an origin of its
// own at $ORIGIN and, besides testscript's commands:
//
//	code N COMMAND…        run a command that must exit with code N
//	start NAME COMMAND…    start a daemon, read its ready line into $NAME_peer,
//	                       $NAME_addr, $NAME_listen, $NAME_proxy, $NAME_proxyhost,
//	                       $NAME_admin and $NAME_supernode; its log is NAME.log
//	term NAME              end it by SIGTERM; it must exit with code 0 in 10 s
//	serve PATH SIZE FILE   serve random bytes at $ORIGIN/PATH, a copy in FILE
//	fail FROM              let the origin fail requests that begin at FROM or
//	                       later; -1 ends that
//	asked PATH BYTES       want the origin to have sent so many bytes of PATH
//	interrupt PATH COMMAND…  run a command and end it by SIGINT as soon as the
//	                       origin has a request for PATH, which it holds; it
//	                       must exit with code 130, and the request must end;
//	                       its log is interrupted.log
//	oneline FILE           want exactly one line in a file, stderr or stdout
//	closeorigin            the origin is out of reach from now on
//	held PATH BYTES        want the daemon of $P2PNODE_DATA_DIR to hold so many
//	                       bytes of PATH
//	empty DIR              want nothing in a directory
//	flip FILE OFFSET TO    copy a file with one bit changed
//	digest FILE            put its digest into $DIGEST
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			origin := p2ptest.NewOrigin(t)
			env.Values[originKey{}] = origin
			env.Values[daemonsKey{}] = map[string]*daemon{}
			env.Setenv("ORIGIN", origin.URL)
			env.Setenv("HOME", env.WorkDir+"/home")
			env.Setenv("XDG_DATA_HOME", env.WorkDir+"/home")
			env.Setenv("FREE", "--listen=/ip4/127.0.0.1/tcp/0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": cmdCode, "start": cmdStart, "term": cmdTerm, "serve": cmdServe,
			"fail": cmdFail, "asked": cmdAsked, "oneline": cmdOneLine, "interrupt": cmdInterrupt(t),
			"closeorigin": cmdCloseOrigin, "held": cmdHeld, "empty": cmdEmpty, "flip": cmdFlip, "digest": cmdDigest,
		},
		RequireExplicitExec: true,
	})
}

type (
	originKey  struct{}
	daemonsKey struct{}
)

// daemon is a process that a script has started.
type daemon struct {
	cmd  *exec.Cmd
	done chan error
}

func originOf(ts *testscript.TestScript) *p2ptest.Origin {
	return ts.Value(originKey{}).(*p2ptest.Origin)
}

// want ends a script whose command was not used as it should.
func want(ts *testscript.TestScript, ok bool, usage string) {
	if !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) > 1, "code N COMMAND…")
	code := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) > 1, "start NAME COMMAND…")
	name := args[0]
	d, log := newDaemon(ts, name, args[1:])
	stdout, err := d.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(d.cmd.Start())
	line, readErr := bufio.NewReader(stdout).ReadBytes('\n')
	go func() { d.done <- errors.Join(d.cmd.Wait(), log.Close()) }()
	ts.Value(daemonsKey{}).(map[string]*daemon)[name] = d
	ts.Defer(func() { _ = d.cmd.Process.Kill() }) // it has mostly been stopped
	if readErr != nil {
		<-d.done
		ts.Fatalf("%s: no ready line: %v\n%s", name, readErr, ts.ReadFile(name+".log"))
	}
	var ready struct {
		Event, Peer, Proxy, Admin, Supernode string
		Addrs                                []string
	}
	ts.Check(json.Unmarshal(line, &ready))
	if ready.Event != "ready" || len(ready.Addrs) == 0 {
		ts.Fatalf("%s: ready line %s", name, line)
	}
	proxy, err := url.Parse(ready.Proxy)
	ts.Check(err)
	listen, _, _ := strings.Cut(ready.Addrs[0], "/p2p/")
	for key, value := range map[string]string{
		"peer": ready.Peer, "addr": ready.Addrs[0], "listen": listen, "proxy": ready.Proxy, "proxyhost": proxy.Host,
		"admin": ready.Admin, "supernode": ready.Supernode,
	} {
		ts.Setenv(name+"_"+key, value)
	}
}

// newDaemon makes a process whose stderr is NAME.log; the caller closes that.
func newDaemon(ts *testscript.TestScript, name string, args []string) (*daemon, *os.File) {
	log, err := os.Create(ts.MkAbs(name + ".log"))
	ts.Check(err)
	path, err := exec.LookPath(args[0])
	ts.Check(err)
	d := &daemon{cmd: exec.Command(path, args[1:]...), done: make(chan error, 1)}
	d.cmd.Stderr, d.cmd.Dir = log, ts.MkAbs(".")
	for _, key := range []string{"HOME", "XDG_DATA_HOME", "PATH", "TMPDIR"} {
		d.cmd.Env = append(d.cmd.Env, key+"="+ts.Getenv(key))
	}
	return d, log
}

func cmdTerm(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "term NAME")
	d := ts.Value(daemonsKey{}).(map[string]*daemon)[args[0]]
	if d == nil {
		ts.Fatalf("no daemon %s", args[0])
	}
	ts.Check(d.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-d.done:
		if err != nil {
			ts.Fatalf("%s: %v\n%s", args[0], err, ts.ReadFile(args[0]+".log"))
		}
	case <-time.After(10 * time.Second):
		ts.Fatalf("%s did not end within 10 s\n%s", args[0], ts.ReadFile(args[0]+".log"))
	}
}

func cmdInterrupt(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		want(ts, !neg && len(args) > 1, "interrupt PATH COMMAND…")
		origin := originOf(ts)
		origin.Stall()
		defer origin.Resume()
		d, log := newDaemon(ts, "interrupted", args[1:])
		ts.Check(d.cmd.Start())
		defer func() { _ = d.cmd.Process.Kill() }() // it has mostly ended
		p2ptest.Eventually(t, 20*time.Second, func() bool { return origin.Running("/"+args[0]) > 0 }, "the origin is asked")
		ts.Check(d.cmd.Process.Signal(os.Interrupt))
		err := errors.Join(d.cmd.Wait(), log.Close())
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
			ts.Fatalf("ended with %v\n%s", err, ts.ReadFile("interrupted.log"))
		}
		p2ptest.Eventually(t, 20*time.Second, func() bool { return origin.Running("/"+args[0]) == 0 }, "the origin's request ends")
	}
}

func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 3, "serve PATH SIZE FILE")
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	data := p2ptest.Bytes(uint64(n), n)
	originOf(ts).Add("/"+args[0], data)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), data, 0o600))
}

func cmdFail(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "fail FROM")
	from, err := strconv.Atoi(args[0])
	ts.Check(err)
	if from < 0 {
		originOf(ts).SetFault(nil)
		return
	}
	originOf(ts).SetFault(func(r *http.Request) (f p2ptest.Fault) {
		var first int
		if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &first); n == 1 && first >= from {
			f.Status = http.StatusInternalServerError
		}
		return f
	})
}

func cmdAsked(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "asked PATH BYTES")
	if got := originOf(ts).Bytes("/" + args[0]); strconv.FormatInt(got, 10) != args[1] {
		ts.Fatalf("the origin has sent %d bytes of %s, want %s", got, args[0], args[1])
	}
}

func cmdOneLine(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "oneline FILE")
	if text := ts.ReadFile(args[0]); strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") {
		ts.Fatalf("want one line, got %q", text)
	}
}
