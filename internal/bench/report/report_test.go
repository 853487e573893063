package report

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func figure(m Metric, place string, values map[string][]float64) (*Run, *Figure) {
	r := &Run{Rounds: 3}
	for _, s := range []string{"kernel", "c", "c-best", "ours"} {
		r.Servers = append(r.Servers, Server{Name: s, Path: "/" + s})
		for i, v := range values[s] {
			r.Add(place, "stage", &m, s, Sample{Round: i, Value: v, ServerCPU: 1, Bytes: 1 << 29, Units: 1000})
		}
	}
	return r, r.Figures[0]
}

func TestMedian(t *testing.T) {
	_, f := figure(Metric{Name: "x"}, "tmpfs", map[string][]float64{"kernel": {9, 1, 4}, "ours": {1, 2, 3, 10}})
	if mid, least, most, ok := f.Value("kernel"); mid != 4 || least != 1 || most != 9 || !ok {
		t.Error(mid, least, most, ok)
	}
	if mid, _, _, _ := f.Value("ours"); mid != 2.5 {
		t.Error(mid)
	}
	f.Best = true
	if v, _, _, _ := f.Value("kernel"); v != 9 {
		t.Error("the best is", v)
	}
	if _, _, _, ok := f.Value("c"); ok {
		t.Error("a median of nothing")
	}
}

func TestVerdict(t *testing.T) {
	both := Target{Kernel: 0.25, C: 4}
	for _, c := range []struct {
		name       string
		m          Metric
		place      string
		k, c, best float64
		ours       float64
		met, asked bool
	}{
		{"both", Metric{Target: both}, "tmpfs", 100, 5, 6, 25, true, true},
		{"too slow for C's best", Metric{Target: both}, "tmpfs", 100, 5, 8, 25, false, true},
		{"too slow for the kernel", Metric{Target: both}, "tmpfs", 100, 1, 2, 24, false, true},
		{"as fast as the kernel, not 4 times C", Metric{Target: both}, "tmpfs", 100, 90, 95, 99, false, true},
		{"times", Metric{Target: both, Lower: true}, "tmpfs", 1, 20, 30, 4, true, true},
		{"times missed", Metric{Target: both, Lower: true}, "tmpfs", 1, 20, 15, 4, false, true},
		{"on tmpfs", Metric{Target: Target{Kernel: 0.5, OnDisk: 0.95}}, "tmpfs", 100, 1, 1, 60, true, true},
		{"on disk", Metric{Target: Target{Kernel: 0.5, OnDisk: 0.95}}, "disk", 100, 1, 1, 60, false, true},
		{"equal, but for noise", Metric{Target: Target{Kernel: 1}}, "tmpfs", 100, 1, 1, 96, true, true},
		{"nothing asked", Metric{}, "tmpfs", 100, 1, 1, 60, false, false},
		{"not measured", Metric{Target: both}, "tmpfs", 100, 1, 1, 0, false, false},
	} {
		v := map[string][]float64{"kernel": {c.k}, "c": {c.c}, "c-best": {c.best}}
		if c.ours > 0 {
			v["ours"] = []float64{c.ours}
		}
		_, f := figure(c.m, c.place, v)
		if met, asked := f.Verdict(); met != c.met || asked != c.asked {
			t.Errorf("%s: met %v asked %v", c.name, met, asked)
		}
		if got := f.AtKernel(); got != (c.ours == 99) {
			t.Errorf("%s: at the kernel's speed: %v", c.name, got)
		}
	}
}

func TestCPU(t *testing.T) {
	_, f := figure(Metric{Name: "x", Data: true}, "tmpfs", map[string][]float64{"ours": {1, 1}})
	if v, ok := f.CPU("ours"); v != 2 || !ok {
		t.Error(v, ok)
	}
	_, f = figure(Metric{Name: "x"}, "tmpfs", map[string][]float64{"ours": {1, 1}})
	if v, ok := f.CPU("ours"); v != 1000 || !ok { // seconds by million is µs each
		t.Error(v, ok)
	}
}

func TestOutput(t *testing.T) {
	r, _ := figure(Metric{Name: "x", Unit: "MiB/s", Data: true, Target: Target{Kernel: 0.5}}, "tmpfs",
		map[string][]float64{"kernel": {2000, 1000, 3000}, "c": {100}, "ours": {1500}})
	r.AddRSS("tmpfs", "stage", "ours", 3<<20)
	r.AddRSS("tmpfs", "stage", "ours", 2<<20)
	var out bytes.Buffer
	r.Tables(&out, true)
	for _, want := range []string{"2,000 (1,000-3,000)", "75%", "15.0x", "met", "3.0 MiB", "1 of 1 targets met"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := r.JSON(&out); err != nil {
		t.Fatal(err)
	}
	var back struct {
		Figures []struct {
			Name    string
			Met     *bool
			Servers map[string]struct{ Value float64 }
		}
	}
	if err := json.Unmarshal(out.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if f := back.Figures[0]; f.Met == nil || !*f.Met || f.Servers["kernel"].Value != 2000 {
		t.Errorf("%+v", f)
	}
}
