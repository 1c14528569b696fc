// `qlora plan`: memory by purpose and time a step, before anything is loaded.
#pragma once

namespace CLI {
class App;
}

void add_plan_command(CLI::App& app);
