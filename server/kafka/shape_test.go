package kafka

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fill gives every field of a message some value, and every array some elements.
func fill(rng *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if rng.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(rng, v.Elem())
		}
	case reflect.Struct:
		if tags, ok := v.Addr().Interface().(*kmsg.Tags); ok {
			for range rng.IntN(3) {
				tags.Set(uint32(100+rng.IntN(1000)), make([]byte, rng.IntN(200)))
			}
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).Name != "Version" && v.Field(i).CanSet() {
				fill(rng, v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), rng.IntN(4), 4))
		for i := range v.Len() {
			fill(rng, v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(rng, v.Index(i))
		}
	case reflect.String:
		v.SetString(string(make([]byte, rng.IntN(300))))
	case reflect.Bool:
		v.SetBool(rng.IntN(2) == 0)
	default:
		if v.CanInt() {
			v.SetInt(rng.Int64() >> (64 - v.Type().Bits()))
		} else if v.CanUint() {
			v.SetUint(uint64(rng.Uint32()) >> (32 - min(32, v.Type().Bits())))
		}
	}
}

// The shape of every served request in every flexible version takes just the bytes that kmsg writes, whatever they are, and no fewer.
func TestShapes(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	checked := 0
	for _, a := range apis {
		if a.key == kmsg.Produce {
			continue
		}
		for version := max(a.min, flexible[a.key]); version <= a.max; version++ {
			for range 60 {
				req := a.key.Request()
				req.SetVersion(version)
				fill(rng, reflect.ValueOf(req).Elem())
				body := req.AppendTo(nil)
				r := reader{b: body}
				r.walkBody(int16(a.key), version)
				if r.bad || r.left() != 0 {
					t.Fatalf("%s v%d: %d of %d bytes are left, bad %v: %+v", a.key.Name(), version, r.left(), len(body), r.bad, req)
				}
				if cut := rng.IntN(len(body)); soundShape(int16(a.key), version, body[:cut]) {
					t.Fatalf("%s v%d: %d of %d bytes are taken for all of it", a.key.Name(), version, cut, len(body))
				}
				checked++
			}
		}
	}
	if checked < 1000 {
		t.Errorf("%d bodies were checked", checked)
	}
}

// fetchShape is the body of a Fetch of nothing, without its tags.
func fetchShape() []byte {
	b := make([]byte, 4+4+4+4+1+4+4)
	return append(b, 1, 1, 1) // no topics, none forgotten, an empty rack
}

func TestShapeOfABomb(t *testing.T) {
	tags := []byte{0xff, 0xff, 0xff, 0xff, 0x0f} // 2³²−1
	for name, b := range map[string]struct {
		key     kmsg.Key
		version int16
		body    []byte
	}{
		"tags of the request": {kmsg.Metadata, 12, append([]byte{1, 0, 0}, tags...)},
		"tags of an element":  {kmsg.Metadata, 12, append(append([]byte{2}, make([]byte, 17)...), tags...)},
		"elements":            {kmsg.Metadata, 12, tags},
		"a string":            {kmsg.ApiVersions, 3, tags},
		"tags in a tag":       {kmsg.Fetch, 12, append(append(fetchShape(), 1, 1, 17), append(make([]byte, 12), tags...)...)},
		"a tag's size":        {kmsg.ApiVersions, 3, append([]byte{0, 0, 1, 1}, tags...)},
	} {
		if soundShape(int16(b.key), b.version, b.body) {
			t.Errorf("%s: taken", name)
		}
	}
}
