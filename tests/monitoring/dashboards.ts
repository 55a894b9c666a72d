// What a dashboard may say, by Grafana's own types: everything of @grafana/schema, and where that says "anything"
// (options of a panel, its fields, overrides, transformations, units) the type of that panel's plugin. test_grafana.py
// writes each of ours below this text as a literal, `export const … : Board = {…}`, and asks the TypeScript compiler:
// a key that Grafana does not know, a word that is not one of its words, and a missing part are errors.
import type * as core from '@grafana/schema/dist/esm/raw/dashboard/x/Dashboard_types.gen';
import type * as bargauge from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as timeline from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
import type { MatcherId, TransformerId, UnitId } from './ids';

// An enum as JSON has it: its words.
type Json<T> = unknown extends T ? unknown
  : T extends string ? `${T}`
  : T extends number | boolean | null | undefined ? T
  : T extends ReadonlyArray<infer Item> ? Json<Item>[]
  : { [K in keyof T]: Json<T[K]> };

type Unit = UnitId | `si:${string}`;
type Defaults<Custom> = Omit<Json<core.FieldConfig>, 'custom' | 'unit'> & { unit: Unit; custom?: Partial<Json<Custom>> };
type Override<Custom> =
  | { [K in keyof core.FieldConfig]-?: { id: K; value: K extends 'unit' ? Unit : Json<core.FieldConfig[K]> } }[keyof core.FieldConfig]
  | { [K in keyof Custom & string]-?: { id: `custom.${K}`; value: Json<Custom[K]> } }[keyof Custom & string];

// @grafana/schema leaves queries to the data source: DataQuery of its own, and what Prometheus's adds.
interface Source { type: 'prometheus'; uid: string }
interface Query {
  datasource: Source; refId: string; expr: string; editorMode: 'code'; legendFormat: string;
  range: boolean; instant: boolean; format?: 'time_series' | 'table' | 'heatmap';
}

type Of<Type extends string, Options, Custom> = Omit<Json<core.Panel>, 'type' | 'options' | 'fieldConfig' | 'targets' | 'datasource' | 'transformations'> & {
  type: Type; id: number; title: string; description: string; gridPos: core.GridPos; datasource: Source; targets: Query[];
  options: Json<Options>;
  fieldConfig: { defaults: Defaults<Custom>; overrides: { matcher: { id: MatcherId; options: unknown }; properties: Override<Custom>[] }[] };
  transformations?: { id: TransformerId; options: unknown; disabled?: boolean }[];
};
type Row = Json<core.RowPanel> & { title: string; gridPos: core.GridPos; panels: [] };
type AnyPanel = Row
  | Of<'bargauge', bargauge.Options, {}>
  | Of<'stat', stat.Options, {}>
  | Of<'state-timeline', timeline.Options, timeline.FieldConfig>
  | Of<'table', table.Options, table.FieldConfig>
  | Of<'timeseries', timeseries.Options, timeseries.FieldConfig>;

type Variable = Json<core.VariableModel> & { definition?: string };
type Annotation = Json<core.AnnotationQuery> & {
  expr?: string; titleFormat?: string; textFormat?: string; tagKeys?: string; step?: string; useValueForTime?: boolean;
};
export type Board = Omit<Json<core.Dashboard>, 'panels' | 'templating' | 'annotations'> & {
  uid: string; title: string; panels: AnyPanel[]; templating: { list: Variable[] }; annotations: { list: Annotation[] };
};
