//go:build linux

package main

import (
	"time"

	"github.com/e2kit/e2kit/internal/bench/report"
)

// A scale is the size of the workloads.
type scale struct {
	rounds  int
	image   int64         // bytes of an image
	stream  int64         // bytes streamed
	random  int64         // bytes of the file that is accessed at random
	ops     int           // random accesses, at most
	fsyncs  int           // at most
	limit   time.Duration // after which a count is cut short
	files   int           // small files
	bigDir  int           // entries of the large folder
	tarball int           // files in the archive
	mounts  int

	makes         int   // runs of mke2fs for a figure, at most
	populateFiles int   // small files to populate with
	populateBytes int64 // large ones

	inspectFiles int // files of the image that debugfs looks through

	checkFiles   int // files of the image with many
	checkExtents int // of the fragmented image
}

var (
	full = scale{rounds: 3, image: 1280 << 20, stream: 512 << 20, random: 256 << 20, ops: 32768, fsyncs: 1000,
		limit: 5 * time.Second, files: 20000, bigDir: 50000, tarball: 10000, mounts: 5,
		makes: 31, populateFiles: 50000, populateBytes: 2 << 30, inspectFiles: 200000,
		checkFiles: 200000, checkExtents: 1 << 20}
	small = scale{rounds: 1, image: 512 << 20, stream: 128 << 20, random: 64 << 20, ops: 4096, fsyncs: 100,
		limit: 400 * time.Millisecond, files: 2000, bigDir: 50000, tarball: 1000, mounts: 2,
		makes: 7, populateFiles: 5000, populateBytes: 256 << 20, inspectFiles: 60000,
		checkFiles: 200000, checkExtents: 128 << 10}
)

// A stage is a series of workloads on one image. run performs all of them,
// since later ones need what earlier ones leave.
type stage struct {
	name    string
	image   *template // nil: a stage of a tool, which makes its own
	tool    string    // that it is of; "": mke2fs
	long    bool      // only when asked for
	metrics []report.Metric
	run     func(b *bed) error
}

// metric returns the stage's metric of that name, which exists.
func (st *stage) metric(name string) *report.Metric {
	for i := range st.metrics {
		if st.metrics[i].Name == name {
			return &st.metrics[i]
		}
	}
	panic("no metric " + st.name + "/" + name)
}

// The targets, as fractions of the kernel's speed and multiples of C's best.
var (
	streaming   = report.Target{Kernel: 0.50, OnDisk: 0.95}
	direct      = report.Target{Kernel: 0.60}
	randWrite   = report.Target{Kernel: 0.80}
	synced      = report.Target{Kernel: 0.60}
	warm        = report.Target{Kernel: 1}
	metadata    = report.Target{Kernel: 0.25, C: 4}
	coldStat    = report.Target{Kernel: 0.40, C: 4}
	cached      = report.Target{Kernel: 0.90, C: 4}
	format      = report.Target{C: 1}
	populated   = report.Target{C: 2}
	inspected   = report.Target{C: 2}
	checkedCold = report.Target{C: 1}
	checked     = report.Target{C: 1.5}
	none        = report.Target{}
)

var stages []stage

func init() {
	mibs := func(name string, t report.Target) report.Metric {
		return report.Metric{Name: name, Unit: "MiB/s", Target: t, Data: true}
	}
	iops := func(name string, t report.Target) report.Metric {
		return report.Metric{Name: name, Unit: "IOPS", Target: t, Data: true}
	}
	rate := func(name, unit string, t report.Target) report.Metric {
		return report.Metric{Name: name, Unit: unit, Target: t}
	}
	millis := func(name string) report.Metric { return report.Metric{Name: name, Unit: "ms", Lower: true} }
	stages = []stage{
		{name: "stream", image: emptyImage, run: runStream, metrics: []report.Metric{
			mibs("write+fsync", streaming), mibs("read cold", streaming), mibs("read warm", warm),
			mibs("direct write", streaming), mibs("direct rewrite", streaming), mibs("direct read", streaming)}},
		{name: "random", image: emptyImage, run: runRandom, metrics: []report.Metric{
			iops("direct read q1", direct), iops("direct read q16", direct),
			iops("direct write q1", direct), iops("direct write q16", direct),
			iops("read cold q1", none), iops("read cold q16", none), iops("read warm q1", warm),
			iops("write+fsync q1", randWrite), iops("write+fsync q16", randWrite)}},
		{name: "fsync", image: emptyImage, run: runFsync, metrics: []report.Metric{
			rate("overwrite+fsync", "ops/s", synced), rate("append+fsync", "ops/s", synced),
			{Name: "append p50", Unit: "us", Lower: true}, {Name: "append p99", Unit: "us", Lower: true},
			rate("4 threads", "ops/s", synced)}},
		{name: "create", image: emptyImage, run: runCreate, metrics: []report.Metric{
			rate("create", "files/s", metadata), millis("sync"), rate("unlink", "files/s", metadata), millis("unmount dirty")}},
		{name: "walk", image: treeImage, run: runWalk, metrics: []report.Metric{
			rate("stat cold", "files/s", coldStat), rate("stat warm", "files/s", cached),
			rate("readdir cold", "entries/s", cached), rate("readdir warm", "entries/s", cached)}},
		{name: "rename", image: treeImage, run: runRename, metrics: []report.Metric{
			rate("same folder", "files/s", metadata), rate("other folder", "files/s", metadata)}},
		{name: "tree", image: emptyImage, run: runTree, metrics: []report.Metric{
			rate("untar", "files/s", metadata), millis("sync"), rate("cp -a", "files/s", metadata),
			rate("rm -r", "files/s", metadata)}},
		{name: "mount", image: emptyImage, run: runMount, metrics: []report.Metric{
			millis("mount"), millis("unmount")}},
		{name: "format", run: runFormat, metrics: formatMetrics()},
		{name: "populate", run: runPopulate, metrics: []report.Metric{
			rate("small files", "files/s", populated), rate("large files", "MiB/s", populated)}},
		{name: "inspect", tool: "debugfs", run: runInspect, metrics: []report.Metric{
			rate("rdump", "files/s", inspected), {Name: "ncheck", Unit: "ms", Lower: true, Target: inspected},
			{Name: "icheck", Unit: "ms", Lower: true, Target: inspected}}},
		{name: "check", tool: "e2fsck", run: runCheck, metrics: checkMetrics()},
		{name: "million", image: millionImage, run: runMillion, long: true, metrics: []report.Metric{
			rate("walk cold", "files/s", coldStat), {Name: "peak RSS", Unit: "MiB", Lower: true}}},
		{name: "8TiB", image: hugeImage, run: runHuge, long: true, metrics: []report.Metric{
			millis("mount"), {Name: "peak RSS", Unit: "MiB", Lower: true}}},
	}
}

// formatMetrics are those of runFormat: what was written must not be more.
func formatMetrics() []report.Metric {
	out := []report.Metric{{Name: "start", Unit: "ms", Lower: true}}
	for _, f := range formatSizes {
		out = append(out, report.Metric{Name: f.name, Unit: "ms", Lower: true},
			report.Metric{Name: f.name + " less start", Unit: "ms", Lower: true, Target: format},
			report.Metric{Name: f.name + " written", Unit: "MiB", Lower: true, Target: format})
	}
	return out
}
