##! Raises a notice for each alert that flowvane writes to its EVE-JSON log.

@load base/frameworks/cluster
@load base/frameworks/input
@load base/frameworks/notice

module Flowvane;

export {
	redef enum Notice::Type += {
		## flowvane found a flow that does not fit what is normal.
		Anomalous_Flow,
	};

	## The log that is followed; it need not be there yet.
	const eve_file = "/var/log/flowvane/eve.json" &redef;

	## Whether what the log holds at the start counts, too. After a restart of Zeek it is told
	## again then.
	const from_start = T &redef;

	## The lowest severity that is told: 1 is the most severe, 3 the least.
	const lowest_severity = 3 &redef;

	## For how long alerts with the same addresses, port and signature are told once.
	const suppress_for = 0secs &redef;

	## What `alert.metadata` holds: texts, numbers too.
	type Metadata: record {
		model: vector of string &optional;
		score: vector of string &optional;
		p_value: vector of string &optional;
		features: vector of string &optional;
		application: vector of string &optional;
		count_: vector of string &optional;
		total: vector of string &optional;
		group_id: vector of string &optional;
		group_event: vector of string &optional;
		group_ports: vector of string &optional;
	};

	## What `alert` holds.
	type Alert: record {
		signature_id: count;
		signature: string;
		severity: count;
		metadata: Metadata &optional;
	};

	## An event of the log: what this script uses of it.
	type Event: record {
		timestamp: string;
		event_type: string;
		flow_id: count &optional;
		src_ip: addr &optional;
		src_port: count &optional;
		dest_ip: addr &optional;
		dest_port: count &optional;
		proto: string &optional;
		community_id: string &optional;
		alert: Alert &optional;
	};

	## Raised for each alert that is told, before its notice.
	##
	## e: what flowvane says.
	global anomaly: event(e: Event);
}

type Line: record {
	text: string;
};

# A key of the metadata that no field can be called.
function field_name(s: string): string
	{
	return s == "count" ? "count_" : s;
	}

function transport(proto: string): transport_proto
	{
	switch ( proto )
		{
		case "TCP":
			return tcp;
		case "UDP":
			return udp;
		default:
			return unknown_transport;
		}
	}

# The first of what a key of the metadata holds.
function first(values: vector of string): string
	{
	return |values| > 0 ? values[0] : "";
	}

function notice_of(e: Event): Notice::Info
	{
	local info = Notice::Info($note=Anomalous_Flow, $msg=e$alert$signature);
	local told = fmt("sid=%d severity=%d", e$alert$signature_id, e$alert$severity);

	if ( e$alert?$metadata )
		{
		local more = e$alert$metadata;
		if ( more?$score && more?$p_value )
			told += fmt(" score=%s p_value=%s", first(more$score), first(more$p_value));
		if ( more?$count_ && more?$total )
			told += fmt(" count=%s total=%s", first(more$count_), first(more$total));
		if ( more?$features )
			told += fmt("; %s", join_string_vec(more$features, "; "));
		}

	if ( e?$community_id )
		told += fmt("; community_id=%s", e$community_id);

	info$sub = told;

	if ( e?$src_ip )
		info$src = e$src_ip;

	if ( e?$dest_ip )
		info$dst = e$dest_ip;

	if ( e?$dest_port && e?$proto )
		info$p = count_to_port(e$dest_port, transport(e$proto));

	if ( suppress_for > 0secs && e?$src_ip && e?$dest_ip )
		{
		info$suppress_for = suppress_for;
		info$identifier = cat(e$src_ip, e$dest_ip, e?$dest_port ? e$dest_port : 0,
		    e$alert$signature_id);
		}

	return info;
	}

event Flowvane::line(description: Input::EventDescription, tpe: Input::Event,
    text: string)
	{
	local parsed = from_json(text, Event, field_name);

	if ( ! parsed$valid )
		{
		Reporter::warning(fmt("flowvane: no event: %s", sub_bytes(text, 1, 200)));
		return;
		}

	local e = parsed$v as Event;

	if ( e$event_type != "alert"
	    || ! e?$alert
	    || e$alert$severity > lowest_severity )
		return;

	event Flowvane::anomaly(e);
	NOTICE(notice_of(e));
	}

event zeek_init()
	{
	# In a cluster one node follows the log, or each would tell everything.
	if ( Cluster::is_enabled() && Cluster::local_node_type() != Cluster::MANAGER )
		return;

	# -F goes on with the new file after rotation, and waits for one that is not there.
	local begin = from_start ? "+1" : "0";
	Input::add_event([$name="flowvane-eve",
	    $source=fmt("tail -n %s -F %s 2>/dev/null |", begin, safe_shell_quote(eve_file)),
	    $reader=Input::READER_RAW, $mode=Input::STREAM, $fields=Line,
	    $want_record=F, $ev=Flowvane::line]);
	}
