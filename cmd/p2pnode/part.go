package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// byteRange is a range as the user wrote it, of which one end may be open.
// Its ends are included, as in HTTP; -1 is an open end. The zero value with
// set false is the whole file.
type byteRange struct {
	set         bool
	first, last int64 // first -1: the last bytes, as many as last says
}

// parseRange reads A-B, A- or -N; an empty string is the whole file.
func parseRange(s string) (byteRange, error) {
	if s == "" {
		return byteRange{}, nil
	}
	a, b, ok := strings.Cut(s, "-")
	r := byteRange{set: true, first: -1, last: -1}
	bad := usagef("range %q: write A-B, A- or -N in bytes, with A not after B", s)
	if !ok || (a == "" && b == "") {
		return r, bad
	}
	for _, end := range []struct {
		text  string
		value *int64
	}{{a, &r.first}, {b, &r.last}} {
		if end.text == "" {
			continue
		}
		n, err := strconv.ParseUint(end.text, 10, 63)
		if err != nil {
			return r, bad
		}
		*end.value = int64(n)
	}
	if (r.first >= 0 && r.last >= 0 && r.first > r.last) || (r.first < 0 && r.last == 0) {
		return r, bad
	}
	return r, nil
}

// String writes the range as in the Range header, without the unit.
func (r byteRange) String() string {
	end := func(n int64) string {
		if n < 0 {
			return ""
		}
		return strconv.FormatInt(n, 10)
	}
	if !r.set {
		return ""
	}
	return end(r.first) + "-" + end(r.last)
}

// part is a download that has begun. The exported fields are its state file;
// the bytes are in the part file, from the first one wanted on.
type part struct {
	URL       string `json:"url"`
	Range     string `json:"range,omitempty"`
	Validator string `json:"validator"` // strong ETag, else Last-Modified
	Start     int64  `json:"start"`     // of the first byte, in the file
	Length    int64  `json:"length"`    // of what is wanted, -1 where unknown

	have int64
}

func (d *download) stateName() string { return d.partName() + ".json" }

// loadPart returns what an earlier get of the same bytes has left, or a zero
// part.
func (d *download) loadPart() part {
	text, err := os.ReadFile(d.stateName())
	if err != nil || !d.resume {
		return part{}
	}
	info, err := os.Stat(d.partName())
	if err != nil {
		return part{}
	}
	return d.readPart(text, info.Size())
}

// readPart reads a state file, beside which there is a part file of so many bytes.
// A state that cannot be continued is a zero part.
func (d *download) readPart(text []byte, have int64) part {
	var p part
	if json.Unmarshal(text, &p) != nil || p.URL != d.url || p.Range != d.want.String() || !p.within(d.want) ||
		p.Validator == "" || clean(p.Validator) != p.Validator || p.Length >= 0 && have > p.Length || have > math.MaxInt64-p.Start {
		return part{}
	}
	p.have = have
	return p
}

// within reports whether Start and Length can be of what is wanted.
func (p *part) within(want byteRange) bool {
	switch {
	case p.Start < 0 || p.Length < -1 || p.Length > math.MaxInt64-p.Start:
		return false
	case !want.set:
		return p.Start == 0
	case want.first < 0:
		return p.Length >= 0 && p.Length <= want.last
	}
	return p.Length >= 0 && p.Start == want.first && (want.last < 0 || p.Length-1 <= want.last-want.first)
}

// savePart writes the state file of a download, or removes it where there is
// no validator to continue by.
func (d *download) savePart(p part) error {
	if p.Validator == "" {
		if err := os.Remove(d.stateName()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the part's state: %w", err)
		}
		return nil
	}
	text, err := json.Marshal(p)
	if err == nil {
		err = os.WriteFile(d.stateName(), text, 0o666)
	}
	if err != nil {
		return fmt.Errorf("keep the part's state: %w", err)
	}
	return nil
}

// kept returns the bytes that a later get would not read again.
func (d *download) kept() int64 {
	if d.stdout != nil {
		return 0
	}
	return d.loadPart().have
}

// dropEmpty removes the files of a download that has got no byte.
func (d *download) dropEmpty() {
	if info, err := os.Stat(d.partName()); err == nil && info.Size() == 0 {
		_ = os.Remove(d.partName()) // what cannot be removed does no harm
		_ = os.Remove(d.stateName())
	}
}

// complete reports whether all bytes are in the part file.
func (p *part) complete() bool {
	return p.Validator != "" && p.Length >= 0 && p.have == p.Length
}

// header is the Range header of the request for what is missing; "" asks for
// the whole file.
func (p *part) header(want byteRange) string {
	switch {
	case p.have == 0 && !want.set:
		return ""
	case p.have == 0:
		return "bytes=" + want.String()
	case p.Length >= 0:
		return fmt.Sprintf("bytes=%d-%d", p.Start+p.have, p.Start+p.Length-1)
	}
	return fmt.Sprintf("bytes=%d-", p.Start+p.have)
}

// accept takes a response's word for where its body belongs. A body that does
// not continue what is there is errChanged.
func (p *part) accept(d *download, res *http.Response) error {
	validator := res.Header.Get("ETag")
	if validator == "" || strings.HasPrefix(validator, "W/") {
		validator = res.Header.Get("Last-Modified")
	}
	if res.StatusCode == http.StatusOK {
		if d.want.set {
			if p.have > 0 {
				return errChanged
			}
			return errors.New("the origin serves no ranges: leave out --range")
		}
		*p = part{URL: d.url, Validator: validator, Length: res.ContentLength}
		return nil
	}
	first, last, err := parseContentRange(res.Header.Get("Content-Range"))
	if err != nil {
		return err
	}
	if p.have > 0 {
		if first != p.Start+p.have || validator != p.Validator || p.Length >= 0 && last != p.Start+p.Length-1 {
			return errChanged
		}
		p.Length = p.have + last - first + 1
		return nil
	}
	got := part{URL: d.url, Range: d.want.String(), Validator: validator, Start: first, Length: last - first + 1}
	if !d.want.set || !got.within(d.want) {
		return fmt.Errorf("asked for %q and was sent %q", p.header(d.want), res.Header.Get("Content-Range"))
	}
	*p = got
	return nil
}

// parseContentRange returns the ends, both included, that a 206 says (RFC 9110
// section 14.4).
func parseContentRange(s string) (first, last int64, err error) {
	ends, all, _ := strings.Cut(strings.TrimPrefix(s, "bytes "), "/")
	a, b, _ := strings.Cut(ends, "-")
	from, err1 := strconv.ParseUint(a, 10, 62)
	to, err2 := strconv.ParseUint(b, 10, 62)
	size, err3 := strconv.ParseUint(all, 10, 63)
	if all == "*" { // not known
		size, err3 = math.MaxInt64, nil
	}
	if errors.Join(err1, err2, err3) != nil || from > to || to >= size || !strings.HasPrefix(s, "bytes ") {
		return 0, 0, fmt.Errorf("answered 206 with Content-Range %q", s)
	}
	return int64(from), int64(to), nil
}
