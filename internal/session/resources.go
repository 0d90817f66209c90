package session

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"backendai"
	"backendai/internal/image/service"
)

// labelShmem is how much shared memory an image would like (API section 11).
const labelShmem = "ai.backend.resource.preferred.shmem"

// What sessions get of which neither they nor their image say anything.
const (
	defaultCPU   = 1000
	defaultMem   = 1 << 30
	defaultShmem = 64 << 20
	leastMem     = 16 << 20 // less runs nothing, and mostly means a unit that was left out
)

// amount writes an amount of a slot for people.
func amount(slot string, n int64) string {
	if backendai.IsBytes(slot) {
		return backendai.FormatSize(n)
	}
	return backendai.FormatAmount(slot, n)
}

// bound writes an amount as users may ask for it: not less (up) or not more than n.
func bound(slot string, n int64, up bool) string {
	const mi = 1 << 20
	if !backendai.IsBytes(slot) || n < mi {
		return backendai.FormatAmount(slot, n)
	}
	if up {
		n += mi - 1
	}
	return strconv.FormatInt(n/mi, 10) + "m"
}

// limit reads a limit that an image's label sets; 0 is none. A label that
// cannot be read sets none: users cannot mend it.
func limit(image backendai.Image, prefix, slot string) int64 {
	n, err := backendai.ParseAmount(slot, image.Labels[prefix+slot])
	if err != nil {
		return 0
	}
	return n
}

// resources reads the slots and the shared memory that are asked for, and fills
// in what is missing from the image's labels (API section 10).
func (f *faults) resources(req CreateRequest, image backendai.Image, capacity backendai.Slots) (slots backendai.Slots, shmem int64) {
	slots = backendai.Slots{}
	for _, slot := range slices.Sorted(maps.Keys(req.Resources)) {
		field, text := "resources."+slot, req.Resources[slot]
		if _, known := capacity[slot]; !known {
			f.hinted("the slots are "+strings.Join(slices.Sorted(maps.Keys(capacity)), ", "), field, "this machine has no resource %q", slot)
			continue
		}
		n, err := backendai.ParseAmount(slot, text)
		if err != nil {
			f.hinted("write amounts as in cpu=2 or mem=4g", field, "%v", err)
			continue
		}
		slots[slot] = n
	}
	shmem, asked := f.shmem(req, image)
	f.fill(slots, shmem, image, capacity)
	if mem := slots[backendai.SlotMem]; shmem >= mem && mem > 0 {
		if asked {
			f.hinted("ask for more memory, or for less shared memory", "resource_opts.shmem",
				"shmem=%s is not less than mem=%s", amount("mem", shmem), amount("mem", mem))
		}
		shmem = max(mem/2, 1)
	}
	f.checkOptions(req.ResourceOpts)
	for _, slot := range slices.Sorted(maps.Keys(slots)) {
		f.checkAmount(slot, slots[slot], shmem, image, capacity)
	}
	return slots, shmem
}

// fill gives every session a processor and memory.
func (f *faults) fill(slots backendai.Slots, shmem int64, image backendai.Image, capacity backendai.Slots) {
	if slots[backendai.SlotCPU] == 0 && f.texts["resources.cpu"] == "" {
		if slots[backendai.SlotCPU] = limit(image, service.LabelMinPrefix, backendai.SlotCPU); slots[backendai.SlotCPU] == 0 {
			slots[backendai.SlotCPU] = min(defaultCPU, capacity[backendai.SlotCPU])
		}
	}
	if slots[backendai.SlotMem] == 0 && f.texts["resources.mem"] == "" {
		if least := limit(image, service.LabelMinPrefix, backendai.SlotMem); least > 0 {
			slots[backendai.SlotMem] = least + shmem
		} else {
			slots[backendai.SlotMem] = min(defaultMem, capacity[backendai.SlotMem])
		}
	}
}

// shmem is the shared memory in bytes, and whether the user named it.
func (f *faults) shmem(req CreateRequest, image backendai.Image) (n int64, asked bool) {
	if text, ok := req.ResourceOpts["shmem"]; ok {
		n, err := backendai.ParseSize(text)
		if err != nil || n == 0 {
			f.hinted("write it as in shmem=64m", "resource_opts.shmem", "%q is not a size above zero", text)
			return defaultShmem, false
		}
		return n, true
	}
	if n, err := backendai.ParseSize(image.Labels[labelShmem]); err == nil && n > 0 {
		return n, false
	}
	return defaultShmem, false
}

func (f *faults) checkOptions(opts map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(opts)) {
		switch name {
		case "shmem":
		case "allow_fractional_resource_fragmentation":
			// It is about devices that are shared in fractions; cpu and mem always are.
			if _, err := strconv.ParseBool(opts[name]); err != nil {
				f.add("resource_opts."+name, "is neither true nor false")
			}
		default:
			f.hinted("there is shmem", "resource_opts."+name, "there is no such option")
		}
	}
}

// checkAmount holds an amount between the image's limits and the machine's.
func (f *faults) checkAmount(slot string, n, shmem int64, image backendai.Image, capacity backendai.Slots) {
	field, have := "resources."+slot, capacity[slot]
	least, most := limit(image, service.LabelMinPrefix, slot), limit(image, service.LabelMaxPrefix, slot)
	with := ""
	if slot == backendai.SlotMem && least > 0 {
		with = fmt.Sprintf(" (%s and %s of shared memory)", amount(slot, least), amount(slot, shmem))
		least += shmem
	}
	switch {
	case slot == backendai.SlotMem && n < leastMem:
		f.hinted("a number without a unit is bytes: write mem=512m or mem=4g", field, "mem=%s is too little to run anything", amount(slot, n))
	case n < least:
		f.hinted(fmt.Sprintf("ask for %s=%s or more", slot, bound(slot, least, true)), field,
			"%s=%s is less than the %s that image %q needs%s", slot, amount(slot, n), amount(slot, least), image.Ref, with)
	case most > 0 && n > most:
		f.hinted(fmt.Sprintf("ask for %s=%s or less", slot, bound(slot, most, false)), field,
			"%s=%s is more than the %s that image %q allows", slot, amount(slot, n), amount(slot, most), image.Ref)
	case n > have:
		f.hinted(fmt.Sprintf("ask for %s=%s or less", slot, bound(slot, have, false)), field,
			"%s=%s is more than the %s that this machine has", slot, amount(slot, n), amount(slot, have))
	}
}

// misfit tells what an image needs that a session does not have. It is asked
// about images that were fetched after the session was planned.
func misfit(one *backendai.Session, image backendai.Image) error {
	for _, slot := range slices.Sorted(maps.Keys(one.Requested)) {
		least, most := limit(image, service.LabelMinPrefix, slot), limit(image, service.LabelMaxPrefix, slot)
		if slot == backendai.SlotMem && least > 0 {
			least += one.Shmem
		}
		has := one.Requested[slot]
		if has < least || most > 0 && has > most {
			broken := least
			if has >= least {
				broken = most
			}
			return backendai.Errorf(backendai.CodeInvalidParams, "image %q does not go with %s=%s; its limit is %s",
				image.Ref, slot, amount(slot, has), amount(slot, broken)).
				WithHint("start it again: now that the image is here, its limits are known")
		}
	}
	ports := servicePorts(image)
	for _, port := range one.PreopenPorts {
		if app := ports[port]; app != "" {
			return backendai.Errorf(backendai.CodeInvalidParams, "preopen port %d is the port of the image's app %q", port, app)
		}
	}
	return nil
}
