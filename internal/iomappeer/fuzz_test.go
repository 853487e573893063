package iomappeer

import (
	"fmt"
	"testing"
)

func TestFuzzSequential(t *testing.T) {
	eachKernel(t, func(t *testing.T, c Config, r refConfig) {
		r.readers = 1
		k, _ := start(t, c, r)
		res, err := Fuzz(k, 1, 400, FuzzOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(res)
	})
}

func TestFuzzConcurrent(t *testing.T) {
	for _, prof := range []Profile{May26, V7} {
		for _, cache := range []bool{false, true} {
			for _, shared := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v/cache=%v/shared=%v", prof, cache, shared), func(t *testing.T) {
					k, _ := start(t, Config{Profile: prof}, refConfig{cache: cache, bs: 4096})
					res, err := Fuzz(k, 2, 800, FuzzOptions{Workers: 4, Shared: shared})
					if err != nil {
						t.Fatal(err)
					}
					t.Log(res)
				})
			}
		}
	}
}
