package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestOffline changes files where a mount would not: e2fsck looks at each image
// as the test ends, at the quota too.
func TestOffline(t *testing.T) {
	src := testfs.Scratch(t)
	testfs.Run(t, "sh", "-c", `mkdir "$1/d" && echo hello >"$1/d/f" && head -c 60000 /dev/zero >"$1/g" && chown 70000:80000 "$1/d/f"`, "sh", src)
	big := filepath.Join(testfs.Scratch(t), "big")
	if err := os.WriteFile(big, make([]byte, 300000), 0o600); err != nil {
		t.Fatal(err)
	}
	script1 := "mkdir nd\nwrite " + big + " nd/p\nsymlink sl target\nrm g\nmknod p p\nea_set d/f user.x y\nmkdir n2\nrmdir n2\nfallocate d/f 0 40\npunch nd/p 2 5\nexpand nd\n"
	for _, features := range []string{"quota,project", "casefold", "encrypt", "verity", "mmp", "quota,casefold,encrypt,verity,ea_inode,inline_data"} {
		t.Run(strings.ReplaceAll(features, ",", "+"), func(t *testing.T) {
			img := testfs.Mke2fs(t, testfs.Spec{Name: "image", Size: 32 << 20, Features: features, Dir: src})
			if status, out, errs := script(t, "", script1, "-w", img.Path); status != 0 {
				t.Fatalf("%d: %s%s", status, out, errs)
			}
			if found := fsck(t, img); strings.Contains(found, "\n") {
				t.Errorf("e2fsck finds\n%s", found)
			}
			// What comes between is seen with what was changed.
			if status, out, errs := script(t, "", "mkdir x\nstat x\nrmdir x\nls /\n", "-w", img.Path); status != 0 || !strings.Contains(out, "directory") {
				t.Errorf("%d: %s%s", status, out, errs)
			}
		})
	}
}

// TestOfflineRefused is for what cannot be done right.
func TestOfflineRefused(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "image", Size: 32 << 20, Features: "casefold,encrypt,verity"})
	img.ExpectDirty("flags are set by hand")
	if status, out, errs := script(t, "", "mkdir cf\nsif cf flags 0x40080000\nmkdir cf/Name\nmkdir enc\nsif enc flags 0x80800\nwrite /dev/null v\nsif v flags 0x180000\n"+
		"write /dev/null e\nsif e flags 0x80800\n", "-w", img.Path); status != 0 {
		t.Fatalf("%d: %s%s", status, out, errs)
	}
	for _, c := range []struct{ request, err string }{
		{"mkdir cf/NAME", "exists"}, {"mkdir cf/\u00e9", "outside of ASCII"}, {"ln v cf/\u00e9", "outside of ASCII"},
		{"mkdir enc/x", "encrypted directory"}, {"write /dev/null enc/x", "encrypted directory"}, {"ln v enc/x", "encrypted directory"},
		{"fallocate e 0 3", "encrypted file"}, {"punch e 0 3", "encrypted file"}, {"fallocate v 0 3", "not permitted"},
	} {
		if status, _, errs := debugfs("-w", "-R", c.request, img.Path); status != 1 || !strings.Contains(errs, c.err) {
			t.Errorf("%s: %d: %s", c.request, status, errs)
		}
	}
	for _, request := range []string{"rmdir cf/name", "rmdir enc", "rm e", "rm v"} {
		if status, _, errs := debugfs("-w", "-R", request, img.Path); status != 0 {
			t.Errorf("%s: %s", request, errs)
		}
	}
}
