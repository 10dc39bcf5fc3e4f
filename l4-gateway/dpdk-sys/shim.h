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
#include <rte_ethdev.h>
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
static const uint64_t WEIR_TX_OFFLOAD_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t WEIR_TX_OFFLOAD_MBUF_FAST_FREE = RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;

struct weir_link {
    uint32_t speed_mbps; /* UINT32_MAX when the driver does not know */
    uint8_t up;
    uint8_t full_duplex;
};

int weir_errno(void);
uint32_t weir_lcore_id(void);
uint64_t weir_rdtsc(void);

/* 0 or -errno; does not wait for a negotiation to end. */
int weir_eth_link(uint16_t port, struct weir_link *out);
uint16_t weir_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t capacity);
uint16_t weir_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count);

struct rte_mbuf *weir_mbuf_alloc(struct rte_mempool *pool);
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
