// Writes a CPU profile and a heap profile of itself, as Go programs do: a foreign writer of
// profile.proto. Arguments: the two files.
package main

import (
	"os"
	"runtime"
	"runtime/pprof"
	"time"
)

var kept [][]byte

func burn(until time.Time) (n int) {
	for time.Now().Before(until) {
		for i := 0; i < 1000; i++ {
			n += i * i
		}
	}
	return n
}

func keep(n int) {
	for i := 0; i < n; i++ {
		kept = append(kept, make([]byte, 1<<20))
	}
}

func write(name string, write func(*os.File) error) {
	file, err := os.Create(name)
	if err == nil {
		err = write(file)
	}
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		panic(err)
	}
}

func main() {
	write(os.Args[1], func(file *os.File) error {
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		burn(time.Now().Add(time.Second))
		pprof.StopCPUProfile()
		return nil
	})
	keep(20)
	runtime.GC()
	write(os.Args[2], func(file *os.File) error { return pprof.WriteHeapProfile(file) })
}
