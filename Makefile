# Binaries bear the names of the tools they stand for; the directories under
# cmd/ do where the names agree. BIN_<dir> is the exception, LINKS_<binary>
# the other names it answers to.
GO        ?= go
PREFIX    ?= /usr/local
DESTDIR   ?=
UNITDIR   ?= $(PREFIX)/lib/systemd/system
FUZZTIME  ?= 10m
TESTFLAGS ?= -timeout 20m
PKGS      ?= ./...
# The generator of documents in urfave/cli makes a Markdown parser part of each
# binary, which costs a third of a millisecond at every start.
TAGS      ?= urfave_cli_no_docs

BIN_mkfs       := mke2fs
LINKS_fuse2fs  := mount.fuse2fs fuse.ext4
LINKS_mke2fs   := mkfs.ext2 mkfs.ext3 mkfs.ext4
LINKS_debugfs  := dumpe2fs e2mmpstatus
LINKS_e2fsck   := fsck.ext2 fsck.ext3 fsck.ext4
LINKS_debugfs  += rdebugfs

# The packages and commands that must build on systems other than Linux.
PORTABLE_CMDS := mkfs debugfs e2fsck
PORTABLE  := endian blockdev buffer jbd2 iomap ext2fs/ondisk ext2fs e2p fsck mkfsconf populate extract
PLATFORMS := darwin/arm64 windows/amd64 linux/386 linux/s390x

CMDS := $(notdir $(patsubst %/main.go,%,$(wildcard cmd/*/main.go)))
binary = $(or $(BIN_$(1)),$(1))

export CGO_ENABLED := 0

.PHONY: all demo test check lint cross race fuzz crash peer bench install clean

all: ; @set -e; mkdir -p bin; $(foreach c,$(CMDS),$(call build,$(c));) :
define build
echo "  GO    bin/$(call binary,$(1))"; $(GO) build -trimpath -tags '$(TAGS)' -o bin/$(call binary,$(1)) ./cmd/$(1); \
$(foreach l,$(LINKS_$(call binary,$(1))),ln -sf $(call binary,$(1)) bin/$(l);) :
endef

demo: all
	@tests/demo

# Ends with "N passed, N failed, N skipped".
test: all
	@E2KIT_E2FSCK=$(CURDIR)/bin/e2fsck $(GO) run ./internal/testsum $(TESTFLAGS) $(PKGS)

# The whole tools, case by case; ends with the same line.
check: all
	@tests/run $(CASES)

lint: cross
	@out=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [ -n "$$out" ]; then echo "gofmt:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags sandboxprobe ./cmd/fuse2fs ./lib/fuse2fs
	$(GO) tool staticcheck ./...

cross:
	@set -e; for p in $(PLATFORMS); do for l in $(PORTABLE); do \
	  [ -d lib/$$l ] || continue; \
	  GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build ./lib/$$l || { echo "$$p: lib/$$l"; exit 1; }; \
	done; for c in $(PORTABLE_CMDS); do \
	  GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -o /dev/null ./cmd/$$c || { echo "$$p: cmd/$$c"; exit 1; }; \
	done; echo "  CROSS $$p"; done

# Parallel load under the race detector, which takes a C compiler.
race:
	CGO_ENABLED=1 $(GO) test -race -timeout 30m ./lib/... ./internal/iomappeer
	CGO_ENABLED=1 $(GO) build -race -o bin/fuse2fs.race ./cmd/fuse2fs
	E2KIT_FUSE2FS=$(CURDIR)/bin/fuse2fs.race E2KIT_MOUNT_OPTS=sandbox=off \
	  $(GO) test -count=1 -timeout 30m -run 'Parallel|Posix|Daemon|MatrixWrite/ext4-(4k|all)' ./tests

# Each fuzz target for FUZZTIME.
fuzz:
	@set -e; for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "== $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -timeout 0 $$p; \
	  done; done

# The long crash sweep: at least 10,000 states.
crash: all
	E2KIT_CRASH_STATES=10000 $(GO) run ./internal/testsum -timeout 2h -run Crash $(PKGS)

# The kernel's side of fuse-iomap, played by a peer: at least 100,000 random
# operations in each form of the protocol, and 5,000 recorded crash states.
peer: all
	E2KIT_PEER_OPS=110000 E2KIT_CRASH_STATES=6000 $(GO) run ./internal/testsum -timeout 1h -run Peer ./lib/fuse2fs

# BENCHFLAGS=-help lists what it can be told, such as -quick.
bench: all
	@$(GO) run ./internal/bench $(BENCHFLAGS)

install: all
	install -d $(DESTDIR)$(PREFIX)/sbin
	@set -e; $(foreach c,$(CMDS),install -m 755 bin/$(call binary,$(c)) $(DESTDIR)$(PREFIX)/sbin/; \
	  $(foreach l,$(LINKS_$(call binary,$(c))),ln -sf $(call binary,$(c)) $(DESTDIR)$(PREFIX)/sbin/$(l);)) :
	@set -e; for m in man/*.[1-8]; do [ -e "$$m" ] || continue; \
	  s=$${m##*.}; install -d $(DESTDIR)$(PREFIX)/share/man/man$$s; \
	  install -m 644 $$m $(DESTDIR)$(PREFIX)/share/man/man$$s/; done
	install -d $(DESTDIR)$(UNITDIR)
	@set -e; for u in packaging/systemd/*; do \
	  sed 's|/usr/sbin/|$(PREFIX)/sbin/|' "$$u" >$(DESTDIR)$(UNITDIR)/$${u##*/}; \
	  chmod 644 $(DESTDIR)$(UNITDIR)/$${u##*/}; done
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	@set -e; for c in packaging/completion/*.bash; do b=$$(basename $$c .bash); \
	  install -m 644 $$c $(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$b; done
	@set -e; for l in $(LINKS_mke2fs); do ln -sf mke2fs $(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$l; done
	ln -sf dumpe2fs $(DESTDIR)$(PREFIX)/share/bash-completion/completions/e2mmpstatus
	@set -e; for l in $(LINKS_e2fsck); do ln -sf e2fsck $(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$l; done

clean:
	rm -rf bin
