package e2p

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Ctime returns a time, seconds since 1970, as ctime(3) does, without the end
// of line: "Tue Nov 14 22:13:20 2023". A year that C cannot name gives
// "(null)".
func Ctime(sec int64, loc *time.Location) string {
	const most = 68e15 // seconds: beyond the years of an int
	if sec > most || sec < -most {
		return "(null)"
	}
	t := time.Unix(sec, 0).In(loc)
	if y := t.Year(); y > math.MaxInt32 || y < math.MinInt32 {
		return "(null)"
	}
	return fmt.Sprintf("%.3s %.3s%3d %02d:%02d:%02d %d",
		t.Weekday(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Year())
}

// ctimeLine is Ctime as a line; what C cannot name has no end of line, as it
// has none there.
func ctimeLine(sec int64, loc *time.Location) string {
	s := Ctime(sec, loc)
	if s == "(null)" {
		return s
	}
	return s + "\n"
}

// Interval returns a number of seconds in months of 30 days, weeks, days and
// hours: "6 months", "1 week, 2 days, 3:00:00"; "<none>" for 0.
func Interval(secs uint32) string {
	if secs == 0 {
		return "<none>"
	}
	var parts []string
	for _, u := range []struct {
		secs uint32
		name string
	}{{86400 * 30, "month"}, {86400 * 7, "week"}, {86400, "day"}} {
		n := secs / u.secs
		if n == 0 {
			continue
		}
		secs -= n * u.secs
		if n > 1 {
			u.name += "s"
		}
		parts = append(parts, fmt.Sprintf("%d %s", n, u.name))
	}
	if secs > 0 {
		parts = append(parts, fmt.Sprintf("%d:%02d:%02d", secs/3600, secs/60%60, secs%60))
	}
	return strings.Join(parts, ", ")
}

// written returns an amount of data, in KiB, with the unit that suits it.
func written(kb uint64) string {
	units := []string{"kB", "MB", "GB", "TB", "PB"}
	i, shift := 0, 0
	for i < len(units)-1 && kb >= 1<<(13+shift) {
		i++
		shift += 10
	}
	if i > 0 {
		kb += 1 << (shift - 1) // rounded
	}
	return fmt.Sprintf("%d %s", kb>>shift, units[i])
}
