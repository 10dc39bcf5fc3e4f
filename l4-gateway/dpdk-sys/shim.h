/* DPDK's inline functions as real symbols, so that Rust can call them. Nothing here decides anything. */
#ifndef WEIR_SHIM_H
#define WEIR_SHIM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <rte_config.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_eth_bond.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_version.h>

/* Where the fields of an mbuf are in this release, in bytes. */
enum weir_mbuf_offset {
    WEIR_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr), /* void * */
    WEIR_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off), /* uint16_t */
    WEIR_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),   /* uint16_t */
    WEIR_MBUF_PORT = offsetof(struct rte_mbuf, port),         /* uint16_t */
    WEIR_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),   /* uint32_t */
    WEIR_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len), /* uint16_t */
    WEIR_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),   /* uint16_t */
};

/* What RSS should hash: addresses, and ports where the frame has them. */
static const uint64_t WEIR_RSS_IP_TCP_UDP =
    RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV4_UDP | RTE_ETH_RSS_IPV6 |
    RTE_ETH_RSS_NONFRAG_IPV6_TCP | RTE_ETH_RSS_NONFRAG_IPV6_UDP;
/* What frames may be hashed by. Modifiers leave out or shorten some of it, or look into tunnels. */
static const uint64_t WEIR_RSS_IPV4 = RTE_ETH_RSS_IPV4;
static const uint64_t WEIR_RSS_IPV4_TCP = RTE_ETH_RSS_NONFRAG_IPV4_TCP;
static const uint64_t WEIR_RSS_IPV4_UDP = RTE_ETH_RSS_NONFRAG_IPV4_UDP;
static const uint64_t WEIR_RSS_IPV6 = RTE_ETH_RSS_IPV6;
static const uint64_t WEIR_RSS_IPV6_TCP = RTE_ETH_RSS_NONFRAG_IPV6_TCP;
static const uint64_t WEIR_RSS_IPV6_UDP = RTE_ETH_RSS_NONFRAG_IPV6_UDP;
static const uint32_t WEIR_RSS_FIRST_MODIFIER = 50; /* this bit and all above it */
/* In the flags of a device: its driver reports changes of the link. */
static const uint32_t WEIR_DEV_INTR_LSC = RTE_ETH_DEV_INTR_LSC;
static const uint64_t WEIR_TX_OFFLOAD_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t WEIR_TX_OFFLOAD_MBUF_FAST_FREE = RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;

struct weir_link {
    uint32_t speed_mbps; /* UINT32_MAX when the driver does not know */
    uint8_t up;
    uint8_t full_duplex;
};

/* What a port does to spread frames over its queues. */
struct weir_rss {
    uint64_t types; /* RTE_ETH_RSS_* */
    uint8_t key[64];
    uint8_t key_length;
    uint8_t is_toeplitz; /* 0 when the driver says that it is another function */
    uint16_t entries;
    uint16_t queues[2048]; /* the redirection table */
};

/* A rule for the NIC: packets of one protocol to this address whose destination port has this value under the mask go to a queue. */
struct weir_port_rule {
    uint8_t address[16]; /* the first four bytes for IPv4 */
    uint8_t is_ipv6;
    uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
    uint16_t value;
    uint16_t mask;
    uint16_t queue;
};

int weir_errno(void);
uint32_t weir_lcore_id(void);
uint64_t weir_rdtsc(void);

/* 0 or -errno; does not wait for a negotiation to end. */
int weir_eth_link(uint16_t port, struct weir_link *out);
/* Has the redirection table of a started port name all its queues by turns. 0 or -errno. */
int weir_eth_rss_spread(uint16_t port, uint16_t entries, uint16_t queues);
/* What is in force on a started port, which has `entries` entries in its redirection table (of rte_eth_dev_info). 0 or -errno. */
int weir_eth_rss(uint16_t port, uint16_t entries, struct weir_rss *out);
/* Puts a rule in force until the port stops: 0 and the rule in `made`, or -errno; with the driver's words in `why` (terminated). */
int weir_port_rule_create(uint16_t port, const struct weir_port_rule *rule, struct rte_flow **made, char *why, size_t size);
/* Takes back a rule that was made: 0 or -errno, with the driver's words. */
int weir_port_rule_destroy(uint16_t port, struct rte_flow *made, char *why, size_t size);
uint16_t weir_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t capacity);
uint16_t weir_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count);

struct rte_mbuf *weir_mbuf_alloc(struct rte_mempool *pool);
/* 0, or -ENOENT and nothing taken. */
int weir_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **frames, unsigned int count);
void weir_mbuf_free(struct rte_mbuf *mbuf);
int weir_mbuf_linearize(struct rte_mbuf *mbuf);
/* 1 when other mbufs share this one's data, which then must not be written. */
int weir_mbuf_is_shared(const struct rte_mbuf *mbuf);

unsigned int weir_ring_enqueue_burst(struct rte_ring *ring, struct rte_mbuf **frames, unsigned int count);
unsigned int weir_ring_dequeue_burst(struct rte_ring *ring, struct rte_mbuf **frames, unsigned int capacity);
unsigned int weir_ring_count(const struct rte_ring *ring);

/* Every line that DPDK logs goes to `sink` (level by rte_log.h, not terminated). 0 or -errno. */
int weir_log_to(void (*sink)(uint32_t level, const char *line, size_t length));

#endif
