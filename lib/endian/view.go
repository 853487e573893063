package endian

import "unsafe"

// View returns b, cut to the size of T, as a *T in place: to set a field is to
// change b. T must have alignment 1 (structs of this package's types and byte
// arrays). View panics if b is shorter than T or T has another alignment; both
// are errors of the caller, who has checked the length of what he read.
func View[T any](b []byte) *T {
	var z T
	if unsafe.Alignof(z) != 1 {
		panic("endian: View of a type that is not made of bytes")
	}
	if uintptr(len(b)) < unsafe.Sizeof(z) {
		panic("endian: View of too few bytes")
	}
	return (*T)(unsafe.Pointer(unsafe.SliceData(b)))
}

// Views returns the first n records of type T of b, in place. It panics as
// View does.
func Views[T any](b []byte, n int) []T {
	var z T
	if unsafe.Alignof(z) != 1 {
		panic("endian: Views of a type that is not made of bytes")
	}
	if n < 0 || uintptr(len(b))/unsafe.Sizeof(z) < uintptr(n) {
		panic("endian: Views of too few bytes")
	}
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

// Bytes returns the bytes of v, in place.
func Bytes[T any](v *T) []byte {
	if unsafe.Alignof(*v) != 1 {
		panic("endian: Bytes of a type that is not made of bytes")
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}
