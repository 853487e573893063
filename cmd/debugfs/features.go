package main

import (
	"fmt"
	"strings"

	"github.com/e2kit/e2kit/lib/e2p"
	"github.com/e2kit/e2kit/lib/ext2fs"
)

func init() {
	register(groupFS,
		request{names: []string{"feature", "features"}, args: "[[-]name...]", help: "show the features; set them, or with - clear them", needs: needFS, max: -1, run: feature},
		request{names: []string{"supported_features"}, args: "[name]", help: "list the features that this program knows, or tell whether it knows one", max: 1, run: supportedFeatures},
	)
}

// feature takes what begins with a dash as a feature to clear, not as an
// option.
func feature(s *session, a *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	sb := r.Super()
	if len(a.words) > 0 {
		if !s.opts.write {
			return errReadOnly
		}
		f := e2p.FeaturesOf(sb)
		if err := e2p.EditFeatures(strings.Join(a.words, ","), &f, nil, nil); err != nil {
			return err
		}
		sb.FeatureCompat.Set(f[e2p.Compat])
		sb.FeatureIncompat.Set(f[e2p.Incompat])
		sb.FeatureROCompat.Set(f[e2p.ROCompat])
		if err := r.WriteSuper(); err != nil {
			return err
		}
	}
	list := e2p.FeatureNames(e2p.FeaturesOf(sb))
	if s.json {
		return s.emit(map[string]any{"features": strings.Fields(strings.TrimSuffix(list, "(none)"))})
	}
	fmt.Fprintf(s.out, "Filesystem features: %s\n", list)
	return nil
}

// journalFeatures are the incompat features of journals, in the order of their
// bits. The last one, of fast commits, has no name in e2fsprogs.
var journalFeatures = []string{"journal_incompat_revoke", "journal_64bit", "journal_async_commit", "journal_checksum_v2",
	"journal_checksum_v3", "FEATURE_I5"}

func supportedFeatures(s *session, a *args) error {
	known := e2p.Features(ext2fs.KnownFeatures())
	if name := a.word(0); name != "" {
		for _, n := range journalFeatures {
			if n == name {
				return s.supported(name)
			}
		}
		c, bit, err := e2p.ParseFeature(name)
		switch {
		case err != nil:
			return err
		case known[c]&bit == 0:
			return fmt.Errorf("feature %s is known, and not supported", name)
		}
		return s.supported(e2p.FeatureName(c, bit))
	}
	names := e2p.FeatureNames(known)
	if s.json {
		return s.emit(map[string]any{"features": strings.Fields(names), "journal_features": journalFeatures})
	}
	fmt.Fprintf(s.out, "Supported features: %s\n %s\n", names, strings.Join(journalFeatures, " "))
	return nil
}

func (s *session) supported(name string) error {
	if s.json {
		return s.emit(map[string]any{"feature": name, "supported": true})
	}
	fmt.Fprintf(s.out, "Supported feature: %s\n", name)
	return nil
}
