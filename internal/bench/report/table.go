package report

import (
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/dustin/go-humanize"
	"github.com/olekukonko/tablewriter"
)

// Tables writes, for each place, the figures with their ratios and targets,
// the servers' CPU and their memory. spread adds the range of the rounds.
func (r *Run) Tables(w io.Writer, spread bool) {
	which := "median"
	if r.Best {
		which = "best"
	}
	fmt.Fprintf(w, "%s; %s of %d rounds, pinned: %s; %.0f s\n", r.Machine, which, r.Rounds, r.Pin, r.Seconds)
	for _, s := range r.Servers {
		if s.Path != "" {
			fmt.Fprintf(w, "  %-7s %s -o %q\n", s.Name, s.Path, s.Options)
		}
	}
	met, asked, even := 0, 0, 0
	for _, place := range r.places() {
		fmt.Fprintf(w, "\n%s\n", place)
		r.figures(w, place, spread && r.Rounds > 1)
		r.cpu(w, place)
		r.memory(w, place)
	}
	for _, f := range r.Figures {
		if ok, has := f.Verdict(); has {
			asked++
			switch {
			case ok:
				met++
			case f.AtKernel():
				even++
			}
		}
	}
	if asked > 0 {
		fmt.Fprintf(w, "\n%d of %d targets met; %d missed against C alone, at the kernel's speed\n", met, asked, even)
	}
}

func (r *Run) places() []string {
	var out []string
	for _, f := range r.Figures {
		if !slices.Contains(out, f.Place) {
			out = append(out, f.Place)
		}
	}
	return out
}

func (r *Run) has(server string) bool {
	return slices.ContainsFunc(r.Servers, func(s Server) bool { return s.Name == server })
}

func newTable(w io.Writer, left int, header ...string) *tablewriter.Table {
	t := tablewriter.NewWriter(w)
	t.SetAutoFormatHeaders(false)
	t.SetAutoWrapText(false)
	t.SetHeader(header)
	align := make([]int, len(header))
	for i := range align {
		align[i] = tablewriter.ALIGN_RIGHT
		if i < left {
			align[i] = tablewriter.ALIGN_LEFT
		}
	}
	t.SetColumnAlignment(align)
	t.SetBorder(false)
	return t
}

func (r *Run) figures(w io.Writer, place string, spread bool) {
	header := []string{"workload", "unit"}
	for _, s := range r.Servers {
		header = append(header, s.Name)
	}
	header = append(header, "C/kernel")
	ours := r.has("ours")
	if ours {
		header = append(header, "ours/kernel", "ours/C", "targets", "")
	}
	t := newTable(w, 2, header...)
	for _, f := range r.Figures {
		if f.Place != place {
			continue
		}
		row := []string{f.Stage + ": " + f.Name, f.Unit}
		for _, s := range r.Servers {
			row = append(row, f.cell(s.Name, spread))
		}
		c, k, oc := f.Ratios()
		row = append(row, percent(c))
		if ours {
			verdict := ""
			if met, asked := f.Verdict(); met {
				verdict = "met"
			} else if f.AtKernel() {
				verdict = "MISSED (C)"
			} else if asked {
				verdict = "MISSED"
			}
			row = append(row, percent(k), times(oc), f.targets(), verdict)
		}
		t.Append(row)
	}
	t.Render()
}

func (f *Figure) cell(server string, spread bool) string {
	mid, least, most, ok := f.Value(server)
	if !ok {
		return "-"
	}
	if !spread {
		return number(mid)
	}
	return fmt.Sprintf("%s (%s-%s)", number(mid), number(least), number(most))
}

func (f *Figure) targets() string {
	k := f.kernelTarget()
	switch {
	case k > 0 && f.Target.C > 0:
		return percent(k) + ", " + times(f.Target.C)
	case k > 0:
		return percent(k)
	case f.Target.C > 0:
		return times(f.Target.C)
	}
	return ""
}

// number shows three figures, or all that stand before the point.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return humanize.Comma(int64(math.Round(v)))
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func percent(v float64) string {
	if v == 0 {
		return "-"
	}
	if v < 0.1 {
		return fmt.Sprintf("%.1f%%", v*100)
	}
	return fmt.Sprintf("%.0f%%", v*100)
}

func times(v float64) string {
	if v == 0 {
		return "-"
	}
	return number(v) + "x"
}

func (r *Run) cpu(w io.Writer, place string) {
	header := []string{"server CPU", "per"}
	var names []string
	for _, s := range r.Servers {
		if s.Path != "" {
			names = append(names, s.Name)
		}
	}
	if len(names) == 0 {
		return
	}
	t := newTable(w, 2, append(header, names...)...)
	for _, f := range r.Figures {
		if f.Place != place || f.Lower {
			continue
		}
		unit := "us/op"
		if f.Data {
			unit = "s/GiB"
		}
		row := []string{f.Stage + ": " + f.Name, unit}
		for _, n := range names {
			if v, ok := f.CPU(n); ok {
				row = append(row, number(v))
			} else {
				row = append(row, "-")
			}
		}
		t.Append(row)
	}
	if t.NumLines() > 0 {
		fmt.Fprintln(w)
		t.Render()
	}
}

func (r *Run) memory(w io.Writer, place string) {
	header := []string{"peak memory"}
	for _, s := range r.Servers {
		if s.Path != "" {
			header = append(header, s.Name)
		}
	}
	t := newTable(w, 1, header...)
	for _, st := range r.stages {
		if st[0] != place {
			continue
		}
		row := []string{st[1]}
		for _, name := range header[1:] {
			cell := "-"
			if n, ok := r.rss[[3]string{place, st[1], name}]; ok {
				cell = humanize.IBytes(uint64(n))
			}
			row = append(row, cell)
		}
		t.Append(row)
	}
	if t.NumLines() > 0 {
		fmt.Fprintln(w)
		t.Render()
	}
}
