package runner

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/testground/sdk-go/ptypes"
	"github.com/testground/sdk-go/runtime"
	syncsvc "github.com/testground/sync-service"
	"github.com/testground/testground/pkg/logging"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/p2pnode/p2pnode/testground/lifeline"
)

// othersWithin is how long instances have to end by themselves after one has
// failed.
const othersWithin = 20 * time.Second

// Run is one run of a case.
type Run struct {
	// Plan and Case name it; ID tells it from others, and names its folder.
	Plan, Case, ID string
	// Binary is what instances run; they find in their environment what to do.
	Binary string
	// Instances of one group, single, as "testground run single" has it.
	Instances int
	// Params are all parameters of the case.
	Params map[string]string
	// OutDir gets PLAN/ID/GROUP/INSTANCE with what each instance writes. Files
	// that the instances need while they run are elsewhere and are deleted.
	OutDir string
	// Log, where set, gets the instances' messages and the end of the standard
	// error of those that failed.
	Log func(string)
	// Limit bounds the run: instances that run longer are killed. 0 is no bound.
	Limit time.Duration
	// Started, where set, gets the process ID of each instance.
	Started func(pid int)
}

// Outputs is the folder of the run.
func (r Run) Outputs() string { return filepath.Join(r.OutDir, r.Plan, r.ID) }

// Do runs all instances and returns nil if each reports success. All have ended
// then.
func (r Run) Do(ctx context.Context) error {
	port, stop, err := StartSync(0)
	if err != nil {
		return err
	}
	defer stop()
	temp, err := os.MkdirTemp("", "p2pnode-testground-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if r.Limit > 0 {
		defer time.AfterFunc(r.Limit, cancel).Stop()
	}
	end, hold, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = end.Close() }()
	defer func() { _ = hold.Close() }()

	errs := make([]error, r.Instances)
	var wg sync.WaitGroup
	var failed sync.Once
	for i := range r.Instances {
		in, err := r.start(ctx, i, port, temp, end)
		if err != nil {
			cancel()
			wg.Wait()
			return err
		}
		wg.Go(func() {
			if errs[i] = in.wait(r.Log); errs[i] != nil {
				failed.Do(func() { time.AfterFunc(othersWithin, cancel) })
			}
		})
	}
	wg.Wait()
	return summary(errs)
}

// summary says what failed, in few lines: where one instance fails, the others
// do because of it.
func summary(errs []error) error {
	var first []string
	n := 0
	for i, err := range errs {
		if err == nil {
			continue
		}
		n++
		if text := fmt.Sprintf("instance %d: %v", i, err); !strings.Contains(text, "has failed") && len(first) < 3 {
			first = append(first, text)
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d instances failed:\n%s", n, len(errs), strings.Join(first, "\n"))
}

// SyncPort is where Testground's own runners look for the sync service.
const SyncPort = 5050

// StartSync starts Testground's sync service on a port of all interfaces, 0 for a
// free one, until stop is called. It fails where the port is taken.
func StartSync(on int) (port int, stop func(), err error) {
	logging.SetLevel(zapcore.ErrorLevel) // it tells of each client that leaves, or is killed
	ctx, cancel := context.WithCancel(context.Background())
	svc, err := syncsvc.NewDefaultService(ctx, zap.NewNop().Sugar())
	if err != nil {
		cancel()
		return 0, nil, fmt.Errorf("start the sync service: %w", err)
	}
	srv, err := syncsvc.NewServer(svc, on)
	if err != nil {
		cancel()
		return 0, nil, fmt.Errorf("start the sync service: %w", err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = srv.Serve() }() // ends with Shutdown
	return srv.Port(), func() {
		down, done := context.WithTimeout(context.Background(), 5*time.Second)
		defer done()
		_ = srv.Shutdown(down)
		cancel()
		<-ended
	}, nil
}

// instance is one child.
type instance struct {
	cmd    *exec.Cmd
	stdout io.Reader
	stderr string
	name   string
}

// start starts an instance.
func (r Run) start(ctx context.Context, i, port int, temp string, end *os.File) (*instance, error) {
	const group = "single"
	in := &instance{name: fmt.Sprintf("%s[%03d]", group, i)}
	outputs := filepath.Join(r.Outputs(), group, strconv.Itoa(i))
	own := filepath.Join(temp, strconv.Itoa(i))
	if err := errors.Join(os.MkdirAll(outputs, 0o750), os.MkdirAll(own, 0o750)); err != nil {
		return nil, err
	}
	in.cmd = exec.CommandContext(ctx, r.Binary)
	in.cmd.Env = append(r.environment(group, outputs, own),
		"SYNC_SERVICE_HOST=localhost", "SYNC_SERVICE_PORT="+strconv.Itoa(port),
		lifeline.Variable+"=stdin", "PATH="+os.Getenv("PATH"), "TMPDIR="+own, "HOME="+own)
	in.cmd.Stdin = end
	in.stderr = filepath.Join(outputs, "stderr.log")
	stderr, err := os.Create(in.stderr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = stderr.Close() }() // the child has its own
	in.cmd.Stderr = stderr
	if in.stdout, err = in.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := in.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start instance %d: %w", i, err)
	}
	if r.Started != nil {
		r.Started(in.cmd.Process.Pid)
	}
	return in, nil
}

// environment is what Testground's local:exec runner gives an instance.
func (r Run) environment(group, outputs, temp string) []string {
	_, subnet, err := net.ParseCIDR("127.1.0.1/16")
	if err != nil {
		panic(err)
	}
	params := runtime.RunParams{
		TestPlan: r.Plan, TestCase: r.Case, TestRun: r.ID, TestInstanceCount: r.Instances, TestDisableMetrics: true,
		TestSubnet: &ptypes.IPNet{IPNet: *subnet}, TestGroupID: group, TestGroupInstanceCount: r.Instances,
		TestInstanceParams: r.Params, TestOutputsPath: outputs, TestTempPath: temp, TestStartTime: time.Now(),
	}
	var env []string
	for k, v := range params.ToEnvVars() {
		env = append(env, k+"="+v)
	}
	return env
}

// wait reads what the instance says until it ends, and returns nil if it
// succeeded.
func (in *instance) wait(log func(string)) error {
	var errs []error
	succeeded := false
	lines := bufio.NewScanner(in.stdout)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var l struct{ Event runtime.Event }
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			continue // not all that the SDK prints is an event
		}
		switch e := l.Event; {
		case e.SuccessEvent != nil:
			succeeded = true
		case e.FailureEvent != nil:
			errs = append(errs, errors.New(e.FailureEvent.Error))
		case e.CrashEvent != nil:
			errs = append(errs, fmt.Errorf("crash: %s", e.CrashEvent.Error))
		case e.MessageEvent != nil && log != nil:
			log(in.name + " " + e.MessageEvent.Message)
		}
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("read output: %w", err))
		_, _ = io.Copy(io.Discard, in.stdout)
	}
	if err := in.cmd.Wait(); err != nil {
		errs = append(errs, err)
	}
	if len(errs) == 0 && !succeeded {
		errs = append(errs, errors.New("it ended without a word"))
	}
	if len(errs) > 0 && log != nil {
		if text, err := os.ReadFile(in.stderr); err == nil && len(text) > 0 {
			log(in.name + " standard error: " + string(text[max(0, len(text)-2000):]))
		}
	}
	return errors.Join(errs...)
}
