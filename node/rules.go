package node

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/node/proxy"
)

// Rule says what happens to the requests that it takes.
type Rule = proxy.Rule

// Action is what a rule does with a request.
type Action = proxy.Action

// Verdict is what a Config makes of a URL.
type Verdict struct {
	// Task is the file's name in the swarm, and TaskURL what it is made of.
	Task, TaskURL string
	// Rule is the place of the rule that takes it, from 0 on, or -1.
	Rule int
	// BySize is set where the rule takes only files of certain sizes and the
	// size was not given: it, or one after it, decides.
	BySize bool
	// Decision is the rule itself; without one, its Action alone.
	Decision Rule
}

// Judge says what a node with this configuration does with a request for a URL;
// size is the file's, or -1 where it is not known. It does no I/O. The error is
// a *FieldError, or says what is wrong with the URL.
func (c Config) Judge(method, rawURL string, size int64) (Verdict, error) {
	if err := first(checkFilter(c.FilterQuery), checkRules(c.Rules)); err != nil {
		return Verdict{}, err
	}
	rules, err := proxy.NewRules(c.Rules)
	if err != nil {
		return Verdict{}, err
	}
	task, err := content.NewTask(rawURL, content.NewFilter(c.FilterQuery))
	if err != nil {
		return Verdict{}, err
	}
	rule, index, decided := rules.Decide(proxy.Asked{
		Method: method, URL: task.URL, Host: proxy.HostOf(task.URL), Size: max(size, proxy.SizeUnknown),
	})
	return Verdict{Task: task.ID.String(), TaskURL: task.URL, Rule: index, BySize: !decided, Decision: rule}, nil
}

// grace is what the rules say of a private file whose origin cannot be reached.
func (n *Node) grace(task content.Task) (after time.Duration, open bool) {
	rule, _, decided := n.rules.Decide(proxy.Asked{Method: http.MethodGet, URL: task.URL, Host: proxy.HostOf(task.URL), Size: proxy.SizeUnknown})
	if !decided {
		return 0, false
	}
	return rule.Grace()
}

func checkFilter(names []string) *FieldError {
	const field = "filter-query"
	for _, s := range names {
		if !content.IsFilterName(s) {
			return &FieldError{field, s, "is no name of a query parameter as it stands in a URL"}
		}
		if content.IsSecretParameter(s) {
			return &FieldError{field, s, "lets somebody in: filtered, the file would be served to those without it"}
		}
	}
	if !content.NewFilter(names).Valid() {
		return &FieldError{field, names[0], fmt.Sprintf("and the others are more than %d names, or than %d bytes together", content.MaxFilterNames, content.MaxFilterBytes)}
	}
	return nil
}

func checkRules(rules []Rule) *FieldError {
	_, err := proxy.NewRules(rules)
	var bad *proxy.RuleError
	if errors.As(err, &bad) {
		return &FieldError{"rules", bad.Value, "in " + bad.Key + " of rule " + strconv.Itoa(bad.Index+1) + " " + bad.Reason}
	}
	return nil
}
