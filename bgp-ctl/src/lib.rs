//! Weir's routing control: announces VIPs to routers by BGP and withdraws them on fault.
