# Everything that is done with this repository. "make" lists it.

DEFINITION ?= base
BUILD      := build
BIN        := $(BUILD)/bin
GO         ?= go
# For whatever make calls, tests and what they call included: as the programs are built, so that nothing is compiled in two ways.
export GOFLAGS := $(strip $(filter-out -trimpath,$(shell $(GO) env GOFLAGS)) -trimpath)
PROGRAMS   := ./tools/cosictl ./tools/cosi-conformance ./tools/cosi-image ./tools/cosi-boot ./tools/cosi-run ./engine ./engine/runtime ./plugins

.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# With TAGS=pkcs11 the programs that build images sign with keys in tokens, too. That takes cgo, so they are not static then; all others are.
BUILDERS := ./tools/cosi-image ./tools/cosi-boot
WITH_CGO = CGO_ENABLED=$(if $(TAGS),1,0) $(GO) build -tags '$(TAGS)' -o $(BIN)/

build: ## Build the host programs and the protoset into build/bin; TAGS=pkcs11: so that they sign with keys in tokens (docs/trusted-boot.md)
	@mkdir -p $(BIN)
	@CGO_ENABLED=0 $(GO) build -o $(BIN)/ $(PROGRAMS)
	@$(if $(TAGS),$(WITH_CGO) $(BUILDERS))
	@CGO_ENABLED=0 $(GO) run ./hack/generate -protoset $(BUILD)/cosi.protoset

$(BIN)/cosi-image: FORCE
	@mkdir -p $(BIN)
	@$(WITH_CGO) ./tools/cosi-image

image: $(BIN)/cosi-image ## Build the image of DEFINITION (default base): raw, qcow2, ISO, PXE set
	@$(BIN)/cosi-image build -o $(BUILD) images/$(DEFINITION).yaml

kernel: $(BIN)/cosi-image ## Build our own kernel for ARCH (amd64), for definitions with the flavour "own"; nothing if the cache has it
	@hack/setup kernel$(if $(filter arm64,$(ARCH)),-arm64)
	@$(BIN)/cosi-image kernel $(or $(ARCH),amd64)

run: ## Build the image and boot it in QEMU
	@hack/setup run
	@$(MAKE) --no-print-directory build image
	@$(BIN)/cosi-run $(RUN_FLAGS)

dev: build ## Run engine, runtime and plugins on this machine, without a VM
	@hack/dev

# How many packages, or VMs, are tested at once: more than there are processors, since they wait a part of the time.
TOGETHER = $(shell echo $$(($$(nproc) * 3 / 2)))

test: ## Run all tests, those in a VM included
	@hack/setup test
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory image
	@$(MAKE) --no-print-directory image DEFINITION=test
	@$(MAKE) --no-print-directory image DEFINITION=test-metal
	@CGO_ENABLED=0 $(GO) vet ./...
	@$(GO) test -race -p $(TOGETHER) -timeout 15m $$($(GO) list ./... | grep -vE '/hack/vmtest|/engine/disk$$|/images/build$$|/cosi-boot/internal/image$$')
	@$(GO) test -race -tags pkcs11 ./images/pkcs11
# Every output there is, at the same time; and what signs with keys in tokens.
	@$(GO) test -race -tags pkcs11 -run '^(TestCloudsGetTheSameDisk|TestASignedImage|TestATokenSignsTheSameBytes|TestNoPINIsInAnImage|TestWhatATokenDoesNotSign)$$' ./images/build
# Without the race detector: all under Landlock, all cuts, what is one goroutine with a disk in memory for each cut, what builds a whole image, and
# VMs. As the programs are built, so that nothing is compiled twice.
	@CGO_ENABLED=0 $(GO) test -parallel $(TOGETHER) -timeout 30m ./engine/disk ./engine/launch ./engine/runtime/state/log ./images/build ./plugins/upgrade ./tools/cosi-boot/internal/image ./hack/vmtest/...

reproduce: ## Build the images for amd64 and arm64 twice, as two users if root calls it, the second time with nothing compiled or downloaded before, and compare
	@for arch in amd64 arm64; do \
		COSI_TEST_ARCH=$$arch COSI_REPRODUCE=full $(GO) test -count=1 -v -timeout 30m -run '^TestTwoBuildsGiveTheSameBytes$$' ./hack/vmtest || exit 1; \
	done

test-kernels: ## Run the tests of the generators on the oldest kernel they are for, on the one that nodes run, on the newest, and on a laptop's; docs/kernels.md says what came of it
	@hack/setup test
	@$(MAKE) --no-print-directory build
	@for definition in test-6-1 test test-backports; do \
		$(MAKE) --no-print-directory image DEFINITION=$$definition && \
		COSI_TEST_DEFINITION=$$definition $(GO) test -count=1 -v -timeout 30m -run '^(TestGenerators|TestStorm)$$' ./hack/vmtest || exit 1; \
	done
	@$(MAKE) --no-print-directory image DEFINITION=metal
	@COSI_TEST_DEFINITION=metal $(GO) test -count=1 -v -timeout 30m -run '^TestLaptop$$' ./hack/vmtest

# The definitions on our own kernel, and the tests of a node that say something of its kernel, and need no module.
OWN_IMAGES = $(addsuffix $(if $(filter arm64,$(ARCH)),-arm64),own test-own)
OWN_TESTS  = TestOutputsBoot|TestState|TestRefusals|TestGenerators|$(if $(filter arm64,$(ARCH)),TestBootServer|TestStaticFromTheSystemPartition,TestTheImageIsSmall|TestSecureBoot|TestMachine|TestStorm)

test-own: ## Build our own kernel for ARCH (amd64), boot every output on it, and test a node there: API, state, Secure Boot, watchdogs, confinement, generators
	@hack/setup test
	@$(if $(filter arm64,$(ARCH)),hack/setup arm64)
	@$(MAKE) --no-print-directory build kernel
	@for definition in $(OWN_IMAGES); do $(MAKE) --no-print-directory image DEFINITION=$$definition || exit 1; done
	@COSI_TEST_ARCH=$(or $(ARCH),amd64) COSI_TEST_BASE=own COSI_TEST_DEFINITION=test-own COSI_TEST_BOOTS=all \
		$(GO) test -count=1 -v -timeout 60m -run '^($(OWN_TESTS))$$' ./hack/vmtest

test-boot: ## Boot every output in every way that it boots: UEFI and BIOS, disk, CD, USB stick, network, cosi-boot, what is for clouds; and nodes that are signed and sealed
	@hack/setup test
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory image
	@$(MAKE) --no-print-directory image DEFINITION=cloud
	@COSI_TEST_BOOTS=all $(GO) test -count=1 -v -timeout 40m -run '^(TestOutputsBoot|TestBootServer|TestAnotherRootIsNotRun|TestAChangedBootImageIsNotRun|TestVolumesAreSealed|TestCloud.*)$$' ./hack/vmtest

test-upgrade: ## Upgrade a node in a VM, and have it leave versions that are broken, by itself; WHAT=install: have one install itself on a disk
	@hack/setup test
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory image
	@$(MAKE) --no-print-directory image DEFINITION=metal
	@COSI_TEST_UPGRADE=$(or $(WHAT),all) $(GO) test -count=1 -v -timeout 60m -run '$(if $(filter install,$(WHAT)),^TestInstallation,^(TestUpgrade$$|TestInstallation))' ./hack/vmtest

# The definitions for arm64, and the tests of a node that say something of its processor, its firmware or its kernel.
ARM64_IMAGES = arm64 test-arm64 test-metal-arm64
ARM64_TESTS  = TestOutputsBoot|TestBootServer|TestEvents|TestNode|TestState|TestStaticFromTheSystemPartition|TestGenerators|TestRefusals

test-arm64: ## Boot every output for arm64, emulated, and from cosi-boot, and test a node there: API, state, reboot, power button, disks that come and go, generators, confinement
	@hack/setup test
	@hack/setup arm64
	@$(MAKE) --no-print-directory build
	@for definition in $(ARM64_IMAGES); do $(MAKE) --no-print-directory image DEFINITION=$$definition || exit 1; done
	@COSI_TEST_ARCH=arm64 COSI_TEST_BOOTS=all $(GO) test -count=1 -v -timeout 60m -run '^($(ARM64_TESTS))$$' ./hack/vmtest

bench: ## Measure the figures that the README states, in about a quarter of an hour, or WHAT of them: size build boot split clean events power idle api boot-server; size-own and boot-own are of our own kernel, only if they are named
	@hack/setup test
	@$(MAKE) --no-print-directory build image
	@$(MAKE) --no-print-directory image DEFINITION=bench
	@$(MAKE) --no-print-directory image DEFINITION=test
	@$(if $(filter %-own,$(WHAT)),$(MAKE) --no-print-directory kernel && $(MAKE) --no-print-directory image DEFINITION=own,:)
	@$(GO) run ./hack/bench $(WHAT)

# The image that is soaked: with the plugin gauge where the processes of the node are looked at, on metal's kernel where it takes its drivers.
SOAKED = $(or $(if $(filter hotplug-usb hotplug-sd hotplug-reader,$(WHAT)),test-metal),$(if $(filter hotplug-%,$(WHAT)),test),base)

# How often, unless ROUNDS says: a round of upgrade-cut takes a boot.
SOAKS = $(or $(ROUNDS),$(if $(filter upgrade-cut,$(WHAT)),200,1000))

soak: ## Kill the runtime ROUNDS times (1000) under load, with SEED, for at most TIME (20m); goes on where it stopped. WHAT=plug, first-boot, cut, upgrade, upgrade-cut (200), or hotplug-scsi, -virtio, -usb, -sd, -reader: a node in a VM
	@mkdir -p $(BIN)
	@CGO_ENABLED=0 $(GO) build -o $(BIN)/ ./engine/runtime ./tools/cosictl
	@test "$(or $(WHAT),runtime)" = runtime || $(MAKE) --no-print-directory image DEFINITION=$(SOAKED)
	@$(GO) run ./hack/soak -what $(or $(WHAT),runtime) -rounds $(SOAKS) -seed $(or $(SEED),1) -for $(or $(TIME),20m)

fuzz: ## Run each fuzz test whose PACKAGE.NAME matches MATCH (all) for CPU (10m) of processor time; docs/fuzz.md says what came of it
	@$(GO) run ./hack/fuzz -match '$(or $(MATCH),.)' -cpu $(or $(CPU),10m)

lint: ## Check formatting, vet, import rules, generated code
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	@CGO_ENABLED=0 $(GO) vet ./...
	@CGO_ENABLED=0 $(GO) test -count=1 ./hack/deps
	@CGO_ENABLED=0 $(GO) run ./hack/generate && git diff --exit-code --stat -- api

generate: ## Generate Go code from api/**/*.proto, and eBPF objects from plugins/**/*.bpf.c
	@hack/setup generate
	@$(GO) run ./hack/generate
	@$(GO) generate ./plugins/...

clean: ## Remove what the other targets made
	rm -rf $(BUILD)

.PHONY: help build image kernel run dev test test-kernels test-own test-boot test-upgrade test-arm64 reproduce bench soak fuzz lint generate clean FORCE
FORCE:
