package vfs

import "unsafe"

// AlignedBytes returns n bytes of Go heap whose address is a multiple of BlockBytes.
func AlignedBytes(n int) []byte {
	b := make([]byte, n+BlockBytes)
	skip := int((BlockBytes - addressOf(b)%BlockBytes) % BlockBytes)
	return b[skip : skip+n : skip+n]
}

func addressOf(b []byte) uintptr {
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))
}
