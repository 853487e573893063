//go:build linux

package testfs

import "testing"

// TestDirtyImages has the kernel recover each kind, and wants the kind to be
// what it says it is.
func TestDirtyImages(t *testing.T) {
	NeedRoot(t)
	for _, d := range DirtyImages() {
		t.Run(d.Name, func(t *testing.T) {
			img := d.Make(t)
			if err := img.Check(t); err == nil {
				t.Error("the image is clean")
			}
			j, err := img.JournalSuper()
			if (err != nil) != (d.Spec.Type == "ext2") {
				t.Fatalf("journal: %v", err)
			}
			if err == nil {
				if j.Compat&d.Compat != d.Compat || j.Incompat&d.Incompat != d.Incompat {
					t.Errorf("journal features %#x %#x, want %#x %#x", j.Compat, j.Incompat, d.Compat, d.Incompat)
				}
				if d.Revokes && j.Revokes() == 0 {
					t.Error("no revoke block")
				}
				if d.FastCommits && !j.HasFastCommits() {
					t.Error("no fast commit")
				}
				if j.Start == 0 && d.Craft == nil {
					t.Error("the journal is empty")
				}
				t.Logf("start %d, sequence %d, %d revoke blocks", j.Start, j.Sequence, j.Revokes())
			}
			tree := Recovered(t, img)
			if len(tree) < 10 {
				t.Errorf("the tree has %d names", len(tree))
			}
		})
	}
}
