#include "offload/card.h"

#define MIB ((size_t)1 << 20)

/* Bytes are what the driver leaves to programs on Linux, some 2 % less than the
 * box says.  Memory is at 0.85 of what the vendor says, which good kernels
 * reach; links are as measured by others: 24 GB/s over 16 lanes of PCIe 4, half
 * of it over 8. */
const struct vibe_card vibe_cards[] = {
    {"3060 12G", 12042 * MIB, {.read = 306e9, .link = 24e9}},
    {"3080 10G", 10014 * MIB, {.read = 646e9, .link = 24e9}},
    {"4060Ti 16G", 16076 * MIB, {.read = 245e9, .link = 12.2e9}},
    {"3090 24G", 24258 * MIB, {.read = 796e9, .link = 21.8e9}},
};

const size_t vibe_n_cards = sizeof(vibe_cards) / sizeof(vibe_cards[0]);
