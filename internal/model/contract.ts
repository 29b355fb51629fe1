import { type KeyField, parseKeyFields } from "./key_fields.ts";

/**
 * The options of the streaming contract: what a job says by Hadoop's names, read
 * into the form the data plane works with. Pure text in, checked values out.
 */

/** How a line is cut into key and value: the key ends before the `keyFields`-th separator. */
export interface PairFormat {
  separator: string;
  keyFields: number;
}

export type Partitioner =
  | { kind: "hash" }
  | { kind: "range" }
  /** KeyFieldBasedPartitioner. @property fields undefined: the hash of the key as text. */
  | { kind: "fields"; fields: KeyField[] | undefined };

export const COMPRESSIONS = ["gzip", "zstd"] as const;
export type Compression = (typeof COMPRESSIONS)[number];

/** What the names of such files end in. */
export function extensionOf(compression: Compression | undefined): "" | ".gz" | ".zst" {
  if (compression === undefined) return "";
  return compression === "gzip" ? ".gz" : ".zst";
}

export interface Contract {
  mapInput: { separator: string; withOffset: boolean };
  mapOutput: PairFormat;
  reduceInput: { separator: string };
  reduceOutput: PairFormat;
  /** Written between key and value of the result; undefined: lines stay as they were printed. */
  resultSeparator: string | undefined;
  /** A line of the result without a separator gets one, as on Hadoop. */
  separatorAlways: boolean;
  compression: Compression | undefined;
  partitioner: Partitioner;
  /** KeyFieldBasedComparator; undefined: unsigned bytes of the whole key. */
  comparator: KeyField[] | undefined;
  /** Between the fields of a key. */
  fieldSeparator: string;
  nonZeroExitFails: boolean;
  unreadInputFails: boolean;
  /** In milliseconds; 0: any time. */
  silenceMs: number;
}

/** Whether reduces are given ranges of keys, which are cut when all maps are done. */
export function cutsRanges(source: ContractSource, reduces: number): boolean {
  return reduces > 1 && contractOf(source).partitioner.kind === "range";
}

/** What `Contract` is read from; both come from a checked request. */
export interface ContractSource {
  conf: Record<string, string>;
  partitioner: string;
  output_format: string;
}

type Check = (value: string) => string | undefined;

const separator: Check = (value) =>
  value === "" || value.length > 64 || /[\r\n\0]/.test(value) || !value.isWellFormed()
    ? "a separator has 1 to 64 characters, and no line end"
    : undefined;
const bool: Check = (value) =>
  /^(true|false)$/.test(value) ? undefined : "true or false is expected";
const fieldCount: Check = (value) =>
  /^[1-9]\d{0,3}$/.test(value) ? undefined : "a whole number from 1 to 9999 is expected";
const milliseconds: Check = (value) =>
  /^\d{1,12}$/.test(value) ? undefined : "milliseconds are expected, 0 for any time";
const keyFields: Check = (value) => {
  const parsed = parseKeyFields(value);
  return typeof parsed === "string" ? parsed : undefined;
};
const codec: Check = (value) =>
  codecOf(value) === undefined ? "GzipCodec or ZStandardCodec is expected" : undefined;
const partitionerClass: Check = (value) =>
  partitionerKind(value) === undefined
    ? "hash, KeyFieldBasedPartitioner or range is expected"
    : undefined;
const comparatorClass: Check = (value) =>
  /(^|\.)KeyFieldBasedComparator$/.test(value) ? undefined : "KeyFieldBasedComparator is expected";

/** Every option there is; what is not listed is refused, not ignored. */
const OPTIONS: Record<string, Check> = {
  "stream.map.input.field.separator": separator,
  "stream.map.input.ignoreKey": bool,
  "stream.map.output.field.separator": separator,
  "stream.num.map.output.key.fields": fieldCount,
  "stream.reduce.input.field.separator": separator,
  "stream.reduce.output.field.separator": separator,
  "stream.num.reduce.output.key.fields": fieldCount,
  "stream.non.zero.exit.is.failure": bool,
  "stream.minRecWrittenToEnableSkip_": (value) =>
    /^\d{1,15}$/.test(value) ? undefined : "a whole number is expected",
  "mapreduce.output.textoutputformat.separator": separator,
  "mapreduce.output.fileoutputformat.compress": bool,
  "mapreduce.output.fileoutputformat.compress.codec": codec,
  "mapreduce.job.partitioner.class": partitionerClass,
  "mapreduce.job.output.key.comparator.class": comparatorClass,
  "mapreduce.map.output.key.field.separator": separator,
  "mapreduce.partition.keypartitioner.options": keyFields,
  "mapreduce.partition.keycomparator.options": keyFields,
  "mapreduce.task.timeout": milliseconds,
};

/** Names that older releases had for the same. */
const OLD_NAMES: Record<string, string> = {
  "map.output.key.field.separator": "mapreduce.map.output.key.field.separator",
  "mapred.text.key.partitioner.options": "mapreduce.partition.keypartitioner.options",
  "mapred.text.key.comparator.options": "mapreduce.partition.keycomparator.options",
  "mapred.partitioner.class": "mapreduce.job.partitioner.class",
  "mapred.output.key.comparator.class": "mapreduce.job.output.key.comparator.class",
  "mapred.textoutputformat.separator": "mapreduce.output.textoutputformat.separator",
  "mapred.output.compress": "mapreduce.output.fileoutputformat.compress",
  "mapred.output.compression.codec": "mapreduce.output.fileoutputformat.compress.codec",
  "mapred.task.timeout": "mapreduce.task.timeout",
};

/** Options of Hadoop's that a request has a field for. */
const FIELD_INSTEAD: Record<string, string> = {
  "mapreduce.job.name": "name",
  "mapred.job.name": "name",
  "mapreduce.job.maps": "m_num",
  "mapred.map.tasks": "m_num",
  "mapreduce.job.reduces": "r_num",
  "mapred.reduce.tasks": "r_num",
  "mapreduce.map.maxattempts": "max_attempts",
  "mapreduce.reduce.maxattempts": "max_attempts",
  "mapreduce.job.priority": "priority",
  "mapreduce.input.fileinputformat.inputdir": "data",
  "mapreduce.output.fileoutputformat.outputdir": "output",
};

/** What is wrong with an option, or undefined. */
export function optionFault(name: string, value: string): string | undefined {
  if (Object.hasOwn(FIELD_INSTEAD, name))
    return `use the field ${FIELD_INSTEAD[name]} of the request`;
  const current = currentName(name);
  const check = Object.hasOwn(OPTIONS, current) ? OPTIONS[current] : undefined;
  if (check === undefined) return `unknown option; known: ${Object.keys(OPTIONS).join(", ")}`;
  return check(value);
}

/** The name an option has now. */
export function currentName(name: string): string {
  return (Object.hasOwn(OLD_NAMES, name) ? OLD_NAMES[name] : undefined) ?? name;
}

const CLASS = /^(?:[\w$]+\.)*(\w+)$/;

/** What a partitioner's name (ours, or Hadoop's class) stands for. */
export function partitionerKind(name: string): Partitioner["kind"] | undefined {
  const simple = CLASS.exec(name)?.[1] ?? "";
  if (simple === "hash" || simple === "HashPartitioner") return "hash";
  if (simple === "range" || simple === "TotalOrderPartitioner") return "range";
  return simple === "KeyFieldBasedPartitioner" ? "fields" : undefined;
}

function codecOf(name: string): Compression | undefined {
  const simple = CLASS.exec(name)?.[1] ?? "";
  if (simple === "gzip" || simple === "GzipCodec") return "gzip";
  return simple === "zstd" || simple === "ZStandardCodec" ? "zstd" : undefined;
}

/** The contract of a job whose request was checked. */
export function contractOf({ conf, partitioner, output_format }: ContractSource): Contract {
  const given = (name: string, otherwise: string) => conf[name] ?? otherwise;
  const format = (side: "map" | "reduce"): PairFormat => ({
    separator: given(`stream.${side}.output.field.separator`, "\t"),
    keyFields: Number(given(`stream.num.${side}.output.key.fields`, "1")),
  });
  const compressed = given("mapreduce.output.fileoutputformat.compress", "false") === "true";
  const codecName = given("mapreduce.output.fileoutputformat.compress.codec", "gzip");
  const hadoop = output_format === "hadoop";
  return {
    mapInput: {
      separator: given("stream.map.input.field.separator", "\t"),
      withOffset: given("stream.map.input.ignoreKey", "true") === "false",
    },
    mapOutput: format("map"),
    reduceInput: { separator: given("stream.reduce.input.field.separator", "\t") },
    reduceOutput: format("reduce"),
    resultSeparator:
      conf["mapreduce.output.textoutputformat.separator"] ?? (hadoop ? "\t" : undefined),
    separatorAlways: hadoop,
    compression: compressed ? codecOf(codecName) : undefined,
    partitioner: partitionerOf(conf, partitioner),
    comparator: comparatorOf(conf),
    fieldSeparator: given("mapreduce.map.output.key.field.separator", "\t"),
    nonZeroExitFails: given("stream.non.zero.exit.is.failure", "true") !== "false",
    unreadInputFails: given("stream.minRecWrittenToEnableSkip_", "1") !== "0",
    silenceMs: Number(given("mapreduce.task.timeout", "600000")),
  };
}

/** Its options alone ask for KeyFieldBasedPartitioner too: nobody writes them for nothing. */
function partitionerOf(conf: Record<string, string>, name: string): Partitioner {
  const options = conf["mapreduce.partition.keypartitioner.options"];
  const asked = name || conf["mapreduce.job.partitioner.class"];
  const kind =
    asked === undefined ? (options === undefined ? "hash" : "fields") : partitionerKind(asked);
  if (kind === "range") return { kind };
  if (kind !== "fields") return { kind: "hash" };
  return { kind, fields: fieldsOf(options) };
}

function comparatorOf(conf: Record<string, string>): KeyField[] | undefined {
  return fieldsOf(conf["mapreduce.partition.keycomparator.options"]);
}

function fieldsOf(options: string | undefined): KeyField[] | undefined {
  if (options === undefined || options.trim() === "") return undefined;
  const parsed = parseKeyFields(options);
  return typeof parsed === "string" ? undefined : parsed;
}
