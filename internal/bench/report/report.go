// Package report collects the figures of a benchmark run, and shows them as
// tables and as JSON: medians of the rounds, their range, ratios between the
// servers, and whether they meet their targets.
//
// Servers are known by name: "kernel", "c" and others that start with "c-"
// (whose best is taken for each figure), and "ours". A Run is for one
// goroutine.
package report

import (
	"encoding/json"
	"io"
	"slices"
	"strings"
)

// Target is what is asked of ours; 0 asks for nothing.
type Target struct {
	Kernel float64 `json:"kernel,omitempty"`         // fraction of the kernel's speed
	OnDisk float64 `json:"kernel_on_disk,omitempty"` // the same in the place "disk", if it differs
	C      float64 `json:"c,omitempty"`              // multiple of C's best speed
}

// Metric is a kind of figure.
type Metric struct {
	Name   string
	Unit   string
	Lower  bool // lower is better: a time, a size
	Data   bool // CPU is counted by byte, not by unit of work
	Target Target
}

// Sample is one measurement.
type Sample struct {
	Round     int     `json:"round"`
	Value     float64 `json:"value"` // in the metric's unit
	Seconds   float64 `json:"seconds,omitempty"`
	ServerCPU float64 `json:"server_cpu_seconds,omitempty"`
	Bytes     int64   `json:"bytes,omitempty"` // of data moved
	Units     float64 `json:"units,omitempty"` // of work done
}

// Server is a column of the tables.
type Server struct {
	Name    string `json:"name"`
	Path    string `json:"path,omitempty"`
	Options string `json:"options,omitempty"`
}

// Figure is a row of the tables: one metric in one place.
type Figure struct {
	Place   string              `json:"place"`
	Stage   string              `json:"stage"`
	Name    string              `json:"name"`
	Unit    string              `json:"unit"`
	Lower   bool                `json:"lower_is_better,omitempty"`
	Data    bool                `json:"-"`
	Best    bool                `json:"-"` // take the best of the rounds, not the median
	Target  Target              `json:"target"`
	Servers map[string][]Sample `json:"-"`
}

// Run is all that was measured.
type Run struct {
	Machine string
	Pin     string
	Rounds  int
	Quick   bool
	Best    bool // figures are the best of the rounds, not medians; set before Add
	Seconds float64
	Servers []Server
	Figures []*Figure
	rss     map[[3]string]int64 // place, stage, server: bytes
	stages  [][2]string         // place, stage, in order
}

// Add records a sample.
func (r *Run) Add(place, stage string, m *Metric, server string, s Sample) {
	i := slices.IndexFunc(r.Figures, func(f *Figure) bool {
		return f.Place == place && f.Stage == stage && f.Name == m.Name
	})
	if i < 0 {
		i = len(r.Figures)
		r.Figures = append(r.Figures, &Figure{Place: place, Stage: stage, Name: m.Name, Unit: m.Unit,
			Lower: m.Lower, Data: m.Data, Best: r.Best, Target: m.Target, Servers: map[string][]Sample{}})
	}
	f := r.Figures[i]
	f.Servers[server] = append(f.Servers[server], s)
}

// AddRSS records a server's peak memory in a stage, in bytes; the greatest of
// the rounds counts.
func (r *Run) AddRSS(place, stage, server string, bytes int64) {
	if r.rss == nil {
		r.rss = map[[3]string]int64{}
	}
	if !slices.Contains(r.stages, [2]string{place, stage}) {
		r.stages = append(r.stages, [2]string{place, stage})
	}
	k := [3]string{place, stage, server}
	r.rss[k] = max(r.rss[k], bytes)
}

// Value returns the median of a server's values, or the best if Best, and
// their range; ok is false if there are none.
func (f *Figure) Value(server string) (mid, least, most float64, ok bool) {
	var v []float64
	for _, s := range f.Servers[server] {
		v = append(v, s.Value)
	}
	if len(v) == 0 {
		return 0, 0, 0, false
	}
	slices.Sort(v)
	n := len(v)
	switch {
	case f.Best && f.Lower:
		return v[0], v[0], v[n-1], true
	case f.Best:
		return v[n-1], v[0], v[n-1], true
	}
	return (v[n/2] + v[(n-1)/2]) / 2, v[0], v[n-1], true
}

// CPU returns the server's CPU seconds, by GiB of data if the metric is of
// data, else by million units of work. ok is false if it did nothing.
func (f *Figure) CPU(server string) (per float64, ok bool) {
	var cpu, amount float64
	for _, s := range f.Servers[server] {
		cpu += s.ServerCPU
		if f.Data {
			amount += float64(s.Bytes) / (1 << 30)
		} else {
			amount += s.Units / 1e6
		}
	}
	if amount == 0 {
		return 0, false
	}
	return cpu / amount, true
}

// bestC returns C's best value; ok is false if there is none.
func (f *Figure) bestC() (best float64, ok bool) {
	for name := range f.Servers {
		if name != "c" && !strings.HasPrefix(name, "c-") {
			continue
		}
		v, _, _, has := f.Value(name)
		if has && (!ok || v > best != f.Lower) {
			best, ok = v, true
		}
	}
	return best, ok
}

// speed is how many times as fast a is as b.
func (f *Figure) speed(a, b float64) float64 {
	if f.Lower {
		a, b = b, a
	}
	if b == 0 {
		return 0
	}
	return a / b
}

// Ratios compares values: speeds, so that more is better whatever the unit.
// A ratio is 0 where one of its sides was not measured.
func (f *Figure) Ratios() (cKernel, oursKernel, oursC float64) {
	k, _, _, hasK := f.Value("kernel")
	o, _, _, hasO := f.Value("ours")
	c, hasC := f.bestC()
	if hasC && hasK {
		cKernel = f.speed(c, k)
	}
	if hasO && hasK {
		oursKernel = f.speed(o, k)
	}
	if hasO && hasC {
		oursC = f.speed(o, c)
	}
	return cKernel, oursKernel, oursC
}

// noise is what "equal" forgives.
const noise = 0.05

// Verdict compares ours with the targets, all of which must hold. asked is
// false where there is none, or nothing to compare.
func (f *Figure) Verdict() (met, asked bool) {
	_, k, c := f.Ratios()
	met = true
	if t := f.kernelTarget(); t > 0 && k > 0 {
		asked = true
		if t == 1 {
			t -= noise
		}
		met = k >= t
	}
	if t := f.Target.C; t > 0 && c > 0 {
		asked = true
		met = met && c >= t
	}
	return met && asked, asked
}

// AtKernel reports whether ours misses only its multiple of C's speed, while
// it is as fast as the kernel: C is too close to the kernel for the multiple.
func (f *Figure) AtKernel() bool {
	_, k, c := f.Ratios()
	return c > 0 && c < f.Target.C && k >= max(1-noise, f.kernelTarget())
}

func (f *Figure) kernelTarget() float64 {
	if f.Place == "disk" && f.Target.OnDisk > 0 {
		return f.Target.OnDisk
	}
	return f.Target.Kernel
}

type jsonServer struct {
	Value   float64  `json:"value"` // the median, or the best
	Min     float64  `json:"min"`
	Max     float64  `json:"max"`
	CPU     float64  `json:"server_cpu_seconds_per_gib,omitempty"`
	CPUOp   float64  `json:"server_cpu_us_per_unit,omitempty"`
	Samples []Sample `json:"samples"`
}

type jsonFigure struct {
	*Figure
	By         map[string]jsonServer `json:"servers"`
	CKernel    float64               `json:"c_best_of_kernel,omitempty"`
	OursKernel float64               `json:"ours_of_kernel,omitempty"`
	OursC      float64               `json:"ours_of_c_best,omitempty"`
	Met        *bool                 `json:"met,omitempty"`
	AtKernel   bool                  `json:"missed_but_at_kernel_speed,omitempty"`
}

type jsonRSS struct {
	Place  string `json:"place"`
	Stage  string `json:"stage"`
	Server string `json:"server"`
	Bytes  int64  `json:"peak_rss_bytes"`
}

// JSON writes everything.
func (r *Run) JSON(w io.Writer) error {
	out := struct {
		Machine string       `json:"machine"`
		Pin     string       `json:"pin"`
		Rounds  int          `json:"rounds"`
		Quick   bool         `json:"quick"`
		Best    bool         `json:"best_of_rounds"`
		Seconds float64      `json:"seconds"`
		Servers []Server     `json:"servers"`
		Figures []jsonFigure `json:"figures"`
		RSS     []jsonRSS    `json:"memory"`
	}{r.Machine, r.Pin, r.Rounds, r.Quick, r.Best, r.Seconds, r.Servers, nil, nil}
	for _, f := range r.Figures {
		j := jsonFigure{Figure: f, By: map[string]jsonServer{}}
		for name, s := range f.Servers {
			js := jsonServer{Samples: s}
			js.Value, js.Min, js.Max, _ = f.Value(name)
			if cpu, _ := f.CPU(name); f.Data {
				js.CPU = cpu
			} else {
				js.CPUOp = cpu
			}
			j.By[name] = js
		}
		j.CKernel, j.OursKernel, j.OursC = f.Ratios()
		if met, asked := f.Verdict(); asked {
			j.Met, j.AtKernel = &met, f.AtKernel()
		}
		out.Figures = append(out.Figures, j)
	}
	for _, st := range r.stages {
		for _, s := range r.Servers {
			if n, ok := r.rss[[3]string{st[0], st[1], s.Name}]; ok {
				out.RSS = append(out.RSS, jsonRSS{st[0], st[1], s.Name, n})
			}
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}
