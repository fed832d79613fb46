/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM ioasid

#if !defined(_IOASID_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _IOASID_TRACE_H

#include <linux/tracepoint.h>

TRACE_EVENT(ioasid_alloc,
	TP_PROTO(u32 id, u32 set),
	TP_ARGS(id, set),
	TP_STRUCT__entry(__field(u32, id) __field(u32, set)),
	TP_fast_assign(__entry->id = id; __entry->set = set;),
	TP_printk("id=%u set=%u", __entry->id, __entry->set)
);

DECLARE_EVENT_CLASS(ioasid_id,
	TP_PROTO(u32 id),
	TP_ARGS(id),
	TP_STRUCT__entry(__field(u32, id)),
	TP_fast_assign(__entry->id = id;),
	TP_printk("id=%u", __entry->id)
);

/* The id was freed; later its last reference was dropped, so that the number can be reused. */
DEFINE_EVENT(ioasid_id, ioasid_free, TP_PROTO(u32 id), TP_ARGS(id));
DEFINE_EVENT(ioasid_id, ioasid_reclaim, TP_PROTO(u32 id), TP_ARGS(id));

/* New ids come from another kind of allocators; 0 is the default allocator. */
TRACE_EVENT(ioasid_hand_over,
	TP_PROTO(u32 from, u32 to, int orphans),
	TP_ARGS(from, to, orphans),
	TP_STRUCT__entry(__field(u32, from) __field(u32, to) __field(int, orphans)),
	TP_fast_assign(__entry->from = from; __entry->to = to; __entry->orphans = orphans;),
	TP_printk("from=%u to=%u orphans=%d", __entry->from, __entry->to, __entry->orphans)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
