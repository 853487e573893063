package ext2fs

import (
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestFreezeHoldsWrites freezes a file system under a writer, who waits.
func TestFreezeHoldsWrites(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "freeze"})
	ino := makeFiles(t, img, 1)[0]
	fs := openImage(t, img, Options{})
	ip, err := fs.Iget(ino)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 8192)
	if _, err := ip.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if err := fs.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := img.Check(t); err != nil { // clean while frozen
		t.Error(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := ip.WriteAt(p, 0) // in place: no transaction holds it
		done <- err
	}()
	select {
	case <-done:
		t.Error("wrote while frozen")
	case <-time.After(50 * time.Millisecond):
	}
	if err := fs.Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	ip.Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
}
