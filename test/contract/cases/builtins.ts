import type { ContractCase } from "../case.ts";

const plain = (reducer: string) => ({ mapper: "identity", reducer, m_num: 2 });
const aggregate = { mapper: "cat", reducer: "aggregate", m_num: 2 };

export const BUILTINS: ContractCase[] = [
  {
    rules: "B1",
    title: "identity does what cat does",
    input: { a: "b\t2\nx\r\na", b: "b\t1\n" },
    request: plain("identity"),
    lines: ["a\t", "b\t1", "b\t2", "x\t"],
  },
  {
    rules: "B1 O4",
    title: "identity without reducers",
    input: { a: "b\n\na" },
    request: { mapper: "identity", r_num: 0, m_num: 1 },
    parts: ["b\n\na\n"],
  },
  {
    rules: "B2",
    title: "sum: whole numbers of any size, and decimals, exactly",
    input: {
      a: "i\t1\ni\t-5\nbig\t9007199254740993\nbig\t9007199254740993\nd\t0.1\nd\t.2\ne\t1e3\ne\t5E-1\n",
      b: "i\t+7\nz\t1.50\nz\t-1.5\nw\t 4 \n",
    },
    request: plain("sum"),
    parts: ["big\t18014398509481986\nd\t0.3\ne\t1000.5\ni\t3\nw\t4\nz\t0\n"],
  },
  {
    rules: "B2",
    title: "sum: what is no number fails",
    input: { a: "k\t1\nk\tmany\n" },
    request: { ...plain("sum"), m_num: 1, max_attempts: 1 },
    fails: /sum: the value "many" of key "k" is not a number/,
  },
  {
    rules: "B2",
    title: "count",
    input: { a: "a\nb\na\tx\n", b: "a\nb\n" },
    request: plain("count"),
    parts: ["a\t3\nb\t2\n"],
  },
  {
    rules: "B2",
    title: "min and max: by number, as they were written",
    input: { a: "k\t10\nk\t9\nk\t-2.50\n", b: "k\t1e1\nk\t-2.5\n" },
    request: plain("min"),
    parts: ["k\t-2.5\n"],
  },
  {
    rules: "B2",
    title: "max",
    input: { a: "k\t10\nk\t9\n", b: "k\t123456789012345678901\nj\t-1\nj\t-2\n" },
    request: plain("max"),
    parts: ["j\t-1\nk\t123456789012345678901\n"],
  },
  {
    rules: "B3",
    title: "distinct pairs",
    input: { a: "b\na\t2\nb\na\t1\n", b: "a\t1\na\t2\nb\nc\tx\n" },
    request: plain("distinct"),
    parts: ["a\t1\na\t2\nb\t\nc\tx\n"],
  },
  {
    rules: "B4",
    title: "aggregate: sums, greatest and least",
    input: {
      a: "LongValueSum:n\t3\nDoubleValueSum:d\t0.5\nLongValueMax:x\t5\nLongValueMin:i\t5\nStringValueMax:s\tabc\nStringValueMin:t\tabc\n",
      b: "LongValueSum:n\t-1\nDoubleValueSum:d\t2.5\nLongValueMax:x\t40\nLongValueMin:i\t40\nStringValueMax:s\tabd\nStringValueMin:t\tabd\n",
    },
    request: aggregate,
    parts: ["d\t3.0\nx\t40\ni\t5\nn\t2\ns\tabd\nt\tabc\n"],
  },
  {
    rules: "B4",
    title: "aggregate: distinct values and histograms",
    input: {
      a: "UniqValueCount:u\ta\nUniqValueCount:u\tb\nUniqValueCount:u\ta\nValueHistogram:h\tred\nValueHistogram:h\tred\t2\n",
      b: "UniqValueCount:u\tb\nUniqValueCount:u\tc\nValueHistogram:h\tblue\nValueHistogram:h\tred\n",
    },
    request: aggregate,
    parts: ["u\t3\nh\t2\t1\t4\t4\t2.5\t1.5\n"],
  },
  {
    rules: "B4",
    title: "aggregate: doubles as Java writes them, longs wrap as there",
    input: {
      a: "DoubleValueSum:big\t1e10\nDoubleValueSum:small\t0.00001\nLongValueSum:wrap\t9223372036854775807\nLongValueSum:wrap\t1\n",
    },
    request: aggregate,
    parts: ["big\t1.0E10\nsmall\t1.0E-5\nwrap\t-9223372036854775808\n"],
  },
  {
    rules: "B4",
    title: "aggregate: a key without a known prefix fails",
    input: { a: "Sum:x\t1\n" },
    request: { ...aggregate, m_num: 1, max_attempts: 1 },
    fails: /aggregate: the key "Sum:x" does not begin with LongValueSum:/,
  },
];
