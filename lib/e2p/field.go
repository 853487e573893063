package e2p

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// FieldKind says what the value of a field is, and so how it is written.
type FieldKind int

const (
	FieldUint   FieldKind = iota
	FieldInt              // may be negative
	FieldTime             // see ParseTime
	FieldString           // cut and filled with zeros
	FieldUUID             // as it is written, or null, random
	FieldHash             // name or number of a directory hash
)

var fieldKindNames = [...]string{"unsigned integer", "integer", "date/time", "string", "UUID", "hash algorithm"}

func (k FieldKind) String() string { return fieldKindNames[k] }

// A Field is a field of a structure on disk, in place, by its name without the
// kernel's prefix. Where the structure has the upper part of a number in a
// place of its own, the field is both, and Name_lo and Name_hi are its parts.
type Field struct {
	Name  string
	Kind  FieldKind
	Hi    bool     // it has an upper part
	parts [][]byte // lowest first, little-endian; of a list: its elements
	list  bool
}

// Len returns how many elements a list has, 0 if the field is none.
func (f *Field) Len() int {
	if !f.list {
		return 0
	}
	return len(f.parts)
}

// kinds has the fields that are not FieldUint.
var fieldKinds = map[string]FieldKind{
	"log_cluster_size": FieldInt, "max_mnt_count": FieldInt,
	"atime": FieldTime, "ctime": FieldTime, "mtime": FieldTime, "dtime": FieldTime, "crtime": FieldTime, "wtime": FieldTime,
	"mkfs_time": FieldTime, "lastcheck": FieldTime, "first_error_time": FieldTime, "last_error_time": FieldTime,
	"uuid": FieldUUID, "journal_uuid": FieldUUID, "hash_seed": FieldUUID, "encrypt_pw_salt": FieldUUID,
	"volume_name": FieldString, "last_mounted": FieldString, "mount_opts": FieldString, "first_error_func": FieldString,
	"last_error_func": FieldString, "nodename": FieldString, "bdevname": FieldString,
	"def_hash_version": FieldHash,
}

// Fields returns the fields of structures of package ondisk, in place: to set a
// field is to change them. The structures are given as pointers; their tags
// have the names, of which prefix ("s_") is cut.
func Fields(prefix string, structs ...any) []Field {
	var out []Field
	find := func(name string) *Field {
		for i := range out {
			if out[i].Name == name {
				return &out[i]
			}
		}
		return nil
	}
	for _, s := range structs {
		v := reflect.ValueOf(s).Elem()
		for i := range v.NumField() {
			name, ok := strings.CutPrefix(v.Type().Field(i).Tag.Get("ext4"), prefix)
			if !ok || strings.HasPrefix(name, "reserved") || strings.HasPrefix(name, "pad") {
				continue
			}
			name = strings.TrimPrefix(name, "obso_")
			if base, ok := strings.CutSuffix(strings.Replace(name, "_high", "_hi", 1), "_hi"); ok {
				if f := find(base); f != nil && len(f.parts) == 1 {
					f.parts, f.Hi = append(f.parts, v.Field(i).Bytes()), true
					continue
				}
			}
			name = strings.TrimSuffix(name, "_lo")
			f := Field{Name: name, Kind: fieldKinds[name]}
			switch a := v.Field(i); {
			case name == "block": // 15 numbers, if it is a map
				f.list, f.parts = true, slices.Collect(slices.Chunk(a.Bytes(), 4))
			case name == "encrypt_algos":
				f.list, f.parts = true, slices.Collect(slices.Chunk(a.Bytes(), 1))
			case a.Type().Elem().Kind() == reflect.Uint8:
				f.parts = [][]byte{a.Bytes()}
			default:
				f.list = f.Kind != FieldUUID // hash_seed is four numbers
				for k := range a.Len() {
					f.parts = append(f.parts, a.Index(k).Bytes())
				}
			}
			out = append(out, f)
		}
	}
	return out
}

// FindField returns the field of that name: "name", "name[3]", "name_lo" or
// "name_hi". It returns the part that was asked for as a field of its own.
func FindField(fields []Field, name string) (*Field, error) {
	base, index, isList := strings.Cut(strings.TrimSuffix(name, "]"), "[")
	for i := range fields {
		f := &fields[i]
		switch {
		case f.list && isList && base == f.Name:
			n, err := strconv.ParseUint(index, 0, 8)
			if err != nil || int(n) >= len(f.parts) {
				return nil, fmt.Errorf("%s has elements from 0 to %d", base, len(f.parts)-1)
			}
			return &Field{Name: name, Kind: f.Kind, parts: f.parts[n : n+1]}, nil
		case f.list && name == f.Name:
			return nil, fmt.Errorf("%s is a list: say which element, as %s[0]", name, name)
		case name == f.Name:
			return f, nil
		case f.Hi && name == f.Name+"_lo":
			return &Field{Name: name, parts: f.parts[:1]}, nil
		case f.Hi && name == f.Name+"_hi":
			return &Field{Name: name, parts: f.parts[1:]}, nil
		}
	}
	return nil, fmt.Errorf("there is no field %q", name)
}

// Uint returns the value as a number.
func (f *Field) Uint() uint64 {
	var n uint64
	shift := 0
	for _, p := range f.parts {
		for _, b := range p {
			if shift < 64 {
				n |= uint64(b) << shift
			}
			shift += 8
		}
	}
	return n
}

// SetUint stores a number. It fails, nothing changed, if that does not fit.
func (f *Field) SetUint(n uint64) error {
	size := 0
	for _, p := range f.parts {
		size += len(p)
	}
	if size < 8 && n>>(8*size) != 0 {
		return fmt.Errorf("%s has %d bits: %d is too large", f.Name, 8*size, n)
	}
	for _, p := range f.parts {
		for i := range p {
			p[i] = byte(n)
			n >>= 8
		}
	}
	return nil
}

// Set stores value, written as the field's kind wants it; now is the time that
// "now" stands for.
func (f *Field) Set(value string, now time.Time) error {
	switch f.Kind {
	case FieldString:
		clear(f.parts[0])
		copy(f.parts[0], value)
		return nil
	case FieldUUID:
		return f.setUUID(value)
	case FieldTime:
		t, err := ParseTime(value, now)
		if err != nil {
			return err
		}
		if !f.Hi {
			t &= 1<<32 - 1
		}
		return f.SetUint(uint64(t))
	case FieldHash:
		for i, n := range hashAlgorithms {
			if n == value {
				return f.SetUint(uint64(i))
			}
		}
	}
	n, ok := new(big.Int).SetString(value, 0)
	if !ok || strings.Contains(value, "_") {
		return fmt.Errorf("%q is not a number", value)
	}
	if n.Sign() < 0 {
		size := 0
		for _, p := range f.parts {
			size += len(p)
		}
		n.Add(n, new(big.Int).Lsh(big.NewInt(1), uint(8*size)))
	}
	if n.Sign() < 0 || !n.IsUint64() {
		return fmt.Errorf("%s: %s is out of range", f.Name, value)
	}
	return f.SetUint(n.Uint64())
}

func (f *Field) setUUID(value string) error {
	b := make([]byte, 16)
	switch value {
	case "null", "clear":
	case "random":
		if _, err := rand.Read(b); err != nil {
			return err
		}
		b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	default:
		u, err := hex.DecodeString(strings.ReplaceAll(value, "-", ""))
		if err != nil || len(u) != len(b) {
			return fmt.Errorf("%q is not a UUID: null and random are others", value)
		}
		b = u
	}
	for _, p := range f.parts {
		b = b[copy(p, b):]
	}
	return nil
}

// hashAlgorithms are the names of directory hashes, by number.
var hashAlgorithms = [...]string{
	ondisk.HashLegacy: "legacy", ondisk.HashHalfMD4: "half_md4", ondisk.HashTEA: "tea", ondisk.HashLegacyUnsigned: "legacy_unsigned",
	ondisk.HashHalfMD4Unsigned: "half_md4_unsigned", ondisk.HashTEAUnsigned: "tea_unsigned", ondisk.HashSipHash: "siphash",
}

// ParseTime reads a time as seconds since 1970: "now"; @ and seconds; date and
// time as YYYYMMDD[hhmm[ss]], in local time; or else a number of seconds.
func ParseTime(value string, now time.Time) (int64, error) {
	if value == "now" {
		return now.Unix(), nil
	}
	if n, ok := strings.CutPrefix(value, "@"); ok {
		s, err := strconv.ParseInt(n, 0, 64)
		if err != nil {
			return 0, fmt.Errorf("%q is not a time", value)
		}
		return s, nil
	}
	for _, layout := range []string{"20060102150405", "200601021504", "20060102"} {
		if t, err := time.ParseInLocation(layout, value, time.Local); err == nil {
			return t.Unix(), nil
		}
	}
	s, err := strconv.ParseInt(value, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time: write now, @seconds or YYYYMMDDhhmmss", value)
	}
	return s, nil
}
