package plan

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	sdk "github.com/testground/sdk-go/runtime"
)

// ResultFile is the name of the results among an instance's outputs.
const ResultFile = "p2pnode.jsonl"

// Record is one line of results. Kind says which of the pointers is set; what
// identifies the run is in every line, so that files can be joined and cut.
type Record struct {
	Kind     string    `json:"kind"` // run, read, check, metric
	Time     time.Time `json:"time"`
	RunID    string    `json:"run_id"`
	Case     string    `json:"case"`
	Commit   string    `json:"commit"`
	N        int       `json:"n"` // instances
	Instance int64     `json:"instance"`
	Group    string    `json:"group"`

	Run    *RunRecord    `json:"run,omitempty"`
	Read   *ReadRecord   `json:"read,omitempty"`
	Check  *CheckRecord  `json:"check,omitempty"`
	Metric *MetricRecord `json:"metric,omitempty"`
}

// RunRecord says what an instance ran with. Each has one, at its beginning.
type RunRecord struct {
	Role    string            `json:"role"` // origin, node
	Params  map[string]string `json:"params"`
	Links   Links             `json:"links"`
	Machine string            `json:"machine"`
}

// Links says how the links of an instance were shaped. What was asked for and
// not done is in NotApplied: no run is silent about that.
type Links struct {
	// By is kernel (Testground's sidecar), user-space (package link), or nobody.
	By string `json:"by"`
	// As asked for: of this instance's uplink.
	UplinkMbit float64 `json:"uplink_mbit"` // 0 is no limit
	LatencyMs  float64 `json:"latency_ms"`
	LossPct    float64 `json:"loss_pct"`
	NotApplied string  `json:"not_applied,omitempty"`
}

// ReadRecord is one read of a client.
type ReadRecord struct {
	Phase  string `json:"phase"`
	Node   int    `json:"node"`
	Site   string `json:"site,omitempty"`
	File   int    `json:"file"`
	Off    int64  `json:"off"`
	Len    int64  `json:"len"`
	Source string `json:"source,omitempty"` // of the first byte: local, peer, origin
	// Bytes by where they came from.
	Local  int64 `json:"local"`
	Peer   int64 `json:"peer"`
	Origin int64 `json:"origin"`
	// StartMs is when it began, since the phase's beginning at this instance;
	// FirstMs and WholeMs are the times to the first and the last byte, PauseMs
	// is the longest time without one after the first.
	StartMs float64 `json:"start_ms"`
	FirstMs float64 `json:"first_ms"`
	WholeMs float64 `json:"whole_ms"`
	PauseMs float64 `json:"pause_ms"`
	Err     string  `json:"err,omitempty"`
}

// CheckRecord is one invariant that was looked at.
type CheckRecord struct {
	Name  string  `json:"name"`
	Got   float64 `json:"got"`
	Bound float64 `json:"bound"`
	Unit  string  `json:"unit"`
	OK    bool    `json:"ok"`
}

// MetricRecord is a figure of an instance.
type MetricRecord struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// recorder writes Records, and points through the SDK.
type recorder struct {
	env  *sdk.RunEnv
	base Record

	mu sync.Mutex
	// mu guards the following.
	enc *json.Encoder
	err error
}

func newRecorder(env *sdk.RunEnv, seq int64, commit string) (*recorder, error) {
	f, err := env.CreateRawAsset(ResultFile)
	if err != nil {
		return nil, fmt.Errorf("open results: %w", err)
	}
	return &recorder{env: env, enc: json.NewEncoder(f), base: Record{
		RunID: env.TestRun, Case: env.TestCase, Commit: commit, N: env.TestInstanceCount, Instance: seq, Group: env.TestGroupID,
	}}, nil
}

// put writes a line.
func (r *recorder) put(kind string, set func(*Record)) {
	line := r.base
	line.Kind, line.Time = kind, time.Now().UTC()
	set(&line)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.enc.Encode(line); err != nil && r.err == nil {
		r.err = fmt.Errorf("write results: %w", err)
	}
}

// metric writes a figure, also as a point of the SDK's results.
func (r *recorder) metric(name string, value float64, unit string) {
	r.put("metric", func(l *Record) { l.Metric = &MetricRecord{name, value, unit} })
	r.env.R().RecordPoint(name, value)
}

// failed returns the first error of writing.
func (r *recorder) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// commitOf returns what the results call the code: what the run was told, else
// the build's revision.
func commitOf(told string) string {
	if told != "" {
		return told
	}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

// machine describes where an instance runs.
func machine() string {
	return fmt.Sprintf("%s/%s, %d cores, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
}
